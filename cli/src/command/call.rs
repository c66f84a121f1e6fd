//! `memit call`: one synchronous call from a shell.

use std::time::{Duration, Instant};

use memit::IpcRenderer;

use crate::{
    json,
    number::whole,
    output::{self, OutputError},
};

/// How long a connection may take, of the time that there is.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Calls the main of APP on CHANNEL with the arguments, and prints the value that comes back as a line of JSON.
#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    /// The name under which the main listens.
    app: String,
    /// The channel to call on.
    channel: String,
    /// An argument that parses as JSON is that value, any other is a string.
    #[arg(value_name = "ARG", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// How long to wait for the answer, in whole seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, allow_negative_numbers = true,
        value_parser = whole::<u64, 1, { u64::MAX }>)]
    timeout: u64,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Connect(#[from] memit::ConnectError),
    #[error("calling {channel:?} of {app:?} failed: {source}")]
    Call { app: String, channel: String, source: memit::CallError },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Call {
    pub(crate) fn run(self) -> Result<(), CallError> {
        let arguments = json::arguments(&self.arguments);
        let timeout = Duration::from_secs(self.timeout);
        let began = Instant::now();
        let renderer = IpcRenderer::builder().handshake_deadline(timeout.min(HANDSHAKE)).connect(&self.app)?;
        let value = renderer
            .send_sync_timeout(self.channel.as_str(), &arguments, timeout.saturating_sub(began.elapsed()))
            .map_err(|source| CallError::Call { app: self.app.clone(), channel: self.channel.clone(), source })?;
        output::line(&value.to_string())?;
        renderer.shutdown();
        Ok(())
    }
}
