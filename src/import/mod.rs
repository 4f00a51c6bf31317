//! `quiver import`: pipelines of Quiver's from another program's configuration, as TOML. What has no equal becomes a
//! comment where it stood. Not pipelines themselves.
//!
//! Invariant: what is printed is a config file that `quiver check` accepts.

use std::path::PathBuf;

use crate::pipeline::settings::Stage;
use crate::pipeline::{self, Pipelines, settings};

mod alloy;
mod promtail;
mod selector;
mod template;

/// Why nothing could be imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error("'{}' is no YAML: {source}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_yaml_ng::Error,
    },
    /// It is no configuration of Alloy.
    #[error("'{}' is no configuration of Alloy: {fault}", path.display())]
    Alloy {
        /// The file.
        path: PathBuf,
        /// Where, and what is expected there.
        fault: String,
    },
    /// It has no stages.
    #[error("'{}' has neither pipeline_stages nor loki.process; expected a configuration of Promtail or Alloy", .0.display())]
    NoStages(PathBuf),
    /// What was made is no pipeline of ours.
    #[error("a stage can't be used here: {0}")]
    Pipeline(#[from] pipeline::Error),
}

/// `quiver import`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Promtail's configuration (YAML), or Alloy's (a name that ends in .alloy or .river)
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What was made of a configuration.
#[derive(Debug)]
pub struct Imported {
    /// A config file.
    pub toml: String,
    /// How many stages have no equal.
    missing: usize,
}

impl Imported {
    /// Whether everything has an equal.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }
}

/// Reads the file and translates it. **Errors**: when it can't be read, or has nothing to import.
pub fn run(arguments: &Arguments) -> Result<Imported, Error> {
    let path = &arguments.file;
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let is_alloy = path.extension().is_some_and(|extension| extension == "alloy" || extension == "river");
    let pipelines = if is_alloy {
        alloy::pipelines(&text).map_err(|fault| Error::Alloy { path: path.clone(), fault })?
    } else {
        let yaml = serde_yaml_ng::from_str(&text).map_err(|source| Error::Yaml { path: path.clone(), source })?;
        promtail::pipelines(&yaml)
    };
    if pipelines.is_empty() {
        return Err(Error::NoStages(path.clone()));
    }
    imported(&pipelines)
}

/// A pipeline on its way.
#[derive(Debug, Default)]
struct Made {
    name: String,
    condition: String,
    comments: Vec<String>,
    steps: Vec<Step>,
}

/// A stage that became of one, or what is to be said of it.
#[derive(Debug)]
enum Step {
    Stage(Stage),
    /// It is done without a stage.
    Needless(String),
    /// There is no equal.
    Missing(String),
}

fn imported(pipelines: &[Made]) -> Result<Imported, Error> {
    let typed = pipelines.iter().map(|made| settings::Pipeline {
        name: made.name.clone(),
        r#match: made.condition.clone(),
        stages: made
            .steps
            .iter()
            .filter_map(|step| if let Step::Stage(stage) = step { Some(stage.clone()) } else { None })
            .collect(),
    });
    Pipelines::compile(&typed.collect::<Vec<_>>())?;
    let mut toml = String::from(
        "# Imported. Extracted values are fields here, each a column: labels are not needed to find them.\n",
    );
    let mut missing = 0;
    for made in pipelines {
        toml.push_str("\n[[pipeline]]\n");
        made.comments.iter().for_each(|comment| push_comment("", comment, &mut toml));
        let pairs = [("name", &made.name), ("match", &made.condition)];
        for (name, text) in pairs.into_iter().filter(|(_, text)| !text.is_empty()) {
            toml.push_str(&format!("{name} = {}\n", toml::Value::String(text.clone())));
        }
        toml.push_str("stages = [\n");
        for step in &made.steps {
            match step {
                Step::Stage(stage) => toml.push_str(&format!("  {},\n", inline(stage))),
                Step::Needless(text) => push_comment("  ", text, &mut toml),
                Step::Missing(text) => {
                    missing += 1;
                    push_comment("  ", &format!("NO EQUAL: {text}"), &mut toml);
                }
            }
        }
        toml.push_str("]\n");
    }
    Ok(Imported { toml, missing })
}

fn push_comment(indent: &str, text: &str, toml: &mut String) {
    for line in text.lines() {
        toml.push_str(&format!("{indent}# {}\n", line.trim_end()));
    }
}

/// A stage as an inline table.
fn inline(stage: &Stage) -> String {
    toml::Value::try_from(stage).map_or_else(|error| format!("# {error}"), |value| value.to_string())
}

#[cfg(test)]
mod tests;
