//! Kills at random times.
