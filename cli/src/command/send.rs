//! `memit send`: messages from a shell.

use std::io::{self, BufRead};

use memit::IpcRenderer;

use crate::json;

/// Sends a message with the arguments to the main of APP on CHANNEL.
#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// The name under which the main listens.
    app: String,
    /// The channel to send on.
    channel: String,
    /// An argument that parses as JSON is that value, any other is a string.
    #[arg(value_name = "ARG", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Send one message for each line of standard input: a JSON array of arguments. Empty lines are skipped.
    #[arg(long, conflicts_with = "arguments")]
    jsonl: bool,
}

/// Why sending failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Connect(#[from] memit::ConnectError),
    #[error("sending on {channel:?} of {app:?} failed: {source}")]
    Send { app: String, channel: String, source: memit::SendError },
    #[error("cannot read standard input: {source}")]
    Input { source: io::Error },
    #[error("line {line} of standard input: {fault}. Messages that were sent before it: {sent}")]
    Line { line: u64, sent: u64, fault: String },
}

impl Send {
    pub(crate) fn run(self) -> Result<(), SendError> {
        let arguments = json::arguments(&self.arguments);
        let renderer = IpcRenderer::connect(&self.app)?;
        if self.jsonl {
            self.send_lines(&renderer, io::stdin().lock())?;
        } else {
            renderer.send(self.channel.as_str(), &arguments).map_err(|source| SendError::Send {
                app: self.app.clone(),
                channel: self.channel.clone(),
                source,
            })?;
        }
        // What was sent is the main's, even if it has not come to it yet.
        renderer.shutdown();
        Ok(())
    }

    fn send_lines(&self, renderer: &IpcRenderer, mut input: impl BufRead) -> Result<(), SendError> {
        let mut text = Vec::new();
        let (mut line, mut sent) = (0, 0);
        loop {
            text.clear();
            line += 1;
            if input.read_until(b'\n', &mut text).map_err(|source| SendError::Input { source })? == 0 {
                return Ok(());
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let fault = |fault: &dyn ToString| SendError::Line { line, sent, fault: fault.to_string() };
            let arguments = json::array(&text).map_err(|error| fault(&error))?;
            renderer.send(self.channel.as_str(), &arguments).map_err(|error| fault(&error))?;
            sent += 1;
        }
    }
}
