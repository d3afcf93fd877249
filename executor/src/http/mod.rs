//! Tasks of kind `http`.

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::job::{Ending, Failure, Job, Target};
use crate::kind::{Context, Fault, Kind, Needs};

#[derive(Default)]
pub struct Http {}

#[async_trait]
impl Kind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn check_target(&self, _target: &Target) -> Vec<Fault> {
        Vec::new()
    }

    fn check_options(&self, _options: &Map<String, Value>) -> Vec<Fault> {
        Vec::new()
    }

    fn needs(&self) -> Needs {
        Needs::Options
    }

    async fn run(&self, _job: &Job, _context: &Context) -> Ending {
        Ending::Failed(Failure::new("not built yet"))
    }

    async fn probe(&self, _target: &Target) -> Result<(), Failure> {
        Ok(())
    }
}
