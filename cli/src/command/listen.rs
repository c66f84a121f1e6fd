//! `memit listen`: a main that prints what it receives.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use memit::{IpcMain, Peer, Value};
use serde_json::json;

use crate::{
    interrupt,
    output::{self, OutputError, Reader},
};

/// Listens as the main of APP: prints each message as a line of JSON and answers a call with its arguments.
///
/// It hears channels of arguments, as `memit send` and `memit call` use them. It ends when standard output is closed,
/// at Ctrl-C and at SIGTERM.
#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// The name under which renderers find it.
    app: String,
}

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(transparent)]
    Bind(#[from] memit::BindError),
    #[error("cannot wait for signals: {source}")]
    Signals { source: io::Error },
    #[error("dispatching failed: {source}")]
    Dispatch { source: memit::RunError },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Listen {
    pub(crate) fn run(self) -> Result<(), ListenError> {
        let main = IpcMain::bind(&self.app)?;
        let handle = main.downgrade();
        interrupt::on_interrupt(move |_| {
            if let Some(main) = handle.upgrade() {
                main.shutdown();
            }
        })
        .map_err(|source| ListenError::Signals { source })?;

        let fault = Arc::new(Mutex::new(None));
        let (handle, note) = (main.downgrade(), Arc::clone(&fault));
        main.on_any(move |event, channel, arguments| {
            let Peer { id, pid, uid, .. } = event.peer();
            let (channel, call) = (json!(channel), event.is_call());
            let line = format!(
                r#"{{"channel":{channel},"args":{arguments},"call":{call},"from":{{"id":{id},"pid":{pid},"uid":{uid}}}}}"#
            );
            let written = output::line(&line);
            if !matches!(written, Ok(Reader::Here)) {
                if let Err(error) = written {
                    note.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                if let Some(main) = handle.upgrade() {
                    main.shutdown();
                }
            }
            event.set_return_value(&Value::Array(arguments.to_owned().0))
        });
        main.on_error(|error| eprintln!("memit: {error}"));
        eprintln!("memit: listening as {:?}; Ctrl-C ends it", self.app);
        main.run().map_err(|source| ListenError::Dispatch { source })?;
        main.shutdown();
        match fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}
