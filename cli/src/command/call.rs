//! `memit call`: one synchronous call from a shell.

use std::time::Duration;

use memit::IpcRenderer;

use crate::{
    json,
    output::{self, OutputError},
};

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
    /// How long to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
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
        let renderer = IpcRenderer::connect(&self.app)?;
        let value = renderer
            .send_sync_timeout(self.channel.as_str(), &arguments, Duration::from_secs(self.timeout))
            .map_err(|source| CallError::Call { app: self.app.clone(), channel: self.channel.clone(), source })?;
        output::line(&value.to_string())?;
        renderer.shutdown();
        Ok(())
    }
}
