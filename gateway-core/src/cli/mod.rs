//! The command line: one module per subcommand, each a function from its arguments to an exit.
//!
//! `main` parses [`Cli`] and calls [`Cli::execute`].

mod agent;
mod agents;
mod cert;
mod check;
mod completions;
mod config;
mod control;
mod health;
mod ice;
mod keyfile;
mod keygen;
mod listen;
mod load;
mod logging;
mod new;
mod replay;
mod run;
mod send;
mod service;
mod signals;
mod terminal;
mod test;
mod tls_options;
mod token;
mod trace;
mod watch;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config::Sources;

/// A signaling gateway for agents. Without a command it runs.
#[derive(Parser)]
#[command(name = "conexus", version)]
pub struct Cli {
    #[command(flatten)]
    overrides: Overrides,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What goes before a command as well as after it. Not clap's `global`, which forgets the `--set`
/// before a command when there is one after it.
#[derive(Default, clap::Args)]
struct Overrides {
    /// Configuration file; without it, gateway.toml in the working directory if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Override one setting, such as presence.timeout=45s; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Run(Overrides),
    /// Check the configuration and the policy and print all that is wrong with them
    Check(Overrides),
    /// Print the settings in effect and where each was set
    Config {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: config::Options,
    },
    /// Ask the gateway of this configuration whether it lives
    ///
    /// Exits with status 0 if it does, and 1 otherwise: for health checks. It takes any certificate.
    Health {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: health::Options,
    },
    /// Let a running gateway read its policy again
    Reload {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: control::Options,
    },
    /// Let a running gateway go back to its former policy
    Rollback {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: control::Options,
    },
    /// Show the hooks of a running gateway, their counts and latencies
    Hooks {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: control::Options,
    },
    /// Show the nodes of a running gateway's cluster, as the one that is asked knows them
    Nodes {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: control::Options,
    },
    /// Judge recorded decisions with this configuration and print what would change
    Replay {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: replay::Options,
    },
    /// Run the tests of scripts: every function whose name begins with test_
    ///
    /// Tests of NAME.rhai lie beside it in NAME.test.rhai, or in the script itself. Exits with
    /// status 1 if a test fails, a file is no script, or there is no test at all.
    Test {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: test::Options,
    },
    /// Make a script or a plugin to begin with
    New {
        #[command(flatten)]
        overrides: Overrides,
        #[command(subcommand)]
        new: new::New,
    },
    /// Make a private key
    Keygen(keygen::Options),
    /// Make certificates for development
    ///
    /// Of an authority of one's own, which is made as well. Prints what to put into gateway.toml, and how
    /// agents trust it.
    Cert(cert::Options),
    /// Make a token for the admin API
    ///
    /// Prints the token, which nobody can show again, and the lines of the configuration that know it
    /// by its hash. Asks no gateway.
    Token(token::Options),
    /// List the agents of a running gateway
    Agents(agents::Options),
    /// Register as an agent, send one message, and print the answer
    Send(send::Options),
    /// Register as an agent and print what arrives, until Ctrl-C
    Listen(listen::Options),
    /// Register as an agent and print the STUN and TURN servers that the gateway tells it
    ///
    /// With credentials, where a server has some: TURN servers let in whoever knows them until they
    /// expire.
    Ice(ice::Options),
    /// Register as an agent and print when others come and go, until Ctrl-C
    ///
    /// A line for each: since when, its DID, online or offline, why. Exits with status 1 when the
    /// gateway lets us follow none of them.
    Watch(watch::Options),
    /// Print the completions of this command line for a shell
    ///
    /// For bash, say: conexus completions bash > /usr/share/bash-completion/completions/conexus
    Completions(completions::Options),
    /// Follow one agent of a running gateway, or draw what was recorded of it
    ///
    /// Prints a line for each message that the agent sends or is sent, and how it fared, until
    /// Ctrl-C. With --record it is kept, and --diagram draws it.
    Trace {
        #[command(flatten)]
        overrides: Overrides,
        #[command(flatten)]
        options: trace::Options,
    },
    /// Put load on a gateway and measure how it fares
    ///
    /// Before it begins, one agent registers for a trial. Ctrl-C ends a run early and prints what
    /// was measured so far.
    Load(Box<load::Options>),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// `run`: the gateway did not start.
    #[error(transparent)]
    Run(#[from] run::RunError),
    /// `keygen`: no key was made.
    #[error(transparent)]
    Keygen(#[from] keygen::KeygenError),
    /// `cert`: no certificate was made.
    #[error(transparent)]
    Cert(#[from] cert::CertError),
    /// `agents`: the list could not be had.
    #[error(transparent)]
    Agents(#[from] agents::AgentsError),
    /// `send`, `listen`, `watch`, `ice`: the little agent did not get through.
    #[error(transparent)]
    Agent(#[from] agent::AgentError),
    /// `reload`, `rollback`, `hooks`, `nodes`: the running gateway did not do it.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// `health`: the gateway did not answer.
    #[error(transparent)]
    Health(#[from] health::HealthError),
    /// `replay`: nothing could be replayed.
    #[error(transparent)]
    Replay(#[from] replay::ReplayCommandError),
    /// `test`: no test was run, or the results are lost.
    #[error(transparent)]
    Test(#[from] test::TestCommandError),
    /// `new`: nothing was made.
    #[error(transparent)]
    New(#[from] new::NewError),
    /// `trace`: nobody could be followed, or nothing drawn.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    /// `load`: there was nothing to load, or the result is lost.
    #[error(transparent)]
    Load(#[from] load::LoadCommandError),
    /// Printing failed, or there is no working directory.
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

impl Cli {
    /// Does what the command line asks for. Standard output carries what was asked for, the log
    /// goes to standard error.
    ///
    /// # Errors
    /// When the command failed; what `check` and `config` find wrong is an exit code instead.
    pub async fn execute(self) -> Result<ExitCode, CliError> {
        let Self { overrides, command } = self;
        match command.unwrap_or(Command::Run(Overrides::default())) {
            Command::Run(more) => Ok(run::run(&overrides.then(more).sources()?).await?),
            Command::Check(more) => Ok(check::check(&overrides.then(more).sources()?)?),
            Command::Config { overrides: more, options } => {
                Ok(config::config(&options, &overrides.then(more).sources()?)?)
            }
            Command::Health { overrides: more, options } => {
                Ok(health::health(&options, &overrides.then(more).sources()?).await?)
            }
            Command::Reload { overrides: more, options } => {
                let sources = overrides.then(more).sources()?;
                Ok(control::control(control::Wish::Reload, &options, &sources).await?)
            }
            Command::Rollback { overrides: more, options } => {
                let sources = overrides.then(more).sources()?;
                Ok(control::control(control::Wish::Rollback, &options, &sources).await?)
            }
            Command::Hooks { overrides: more, options } => {
                let sources = overrides.then(more).sources()?;
                Ok(control::control(control::Wish::Hooks, &options, &sources).await?)
            }
            Command::Nodes { overrides: more, options } => {
                let sources = overrides.then(more).sources()?;
                Ok(control::control(control::Wish::Nodes, &options, &sources).await?)
            }
            Command::Replay { overrides: more, options } => {
                Ok(replay::replay(&options, &overrides.then(more).sources()?)?)
            }
            Command::Test { overrides: more, options } => {
                Ok(test::test(&options, &overrides.then(more).sources()?)?)
            }
            Command::New { overrides: more, new } => {
                Ok(new::new(&new, &overrides.then(more).sources()?)?)
            }
            Command::Trace { overrides: more, options } => {
                let sources = overrides.then(more).sources()?;
                Ok(trace::trace(&options, &sources).await?)
            }
            Command::Keygen(options) => Ok(keygen::keygen(&options)?),
            Command::Cert(options) => Ok(cert::cert(&options)?),
            Command::Token(options) => Ok(token::token(&options)?),
            Command::Agents(options) => Ok(agents::agents(&options).await?),
            Command::Send(options) => Ok(send::send(&options).await?),
            Command::Ice(options) => Ok(ice::ice(&options).await?),
            Command::Listen(options) => Ok(listen::listen(&options).await?),
            Command::Watch(options) => Ok(watch::watch(&options).await?),
            Command::Completions(options) => Ok(completions::completions(&options)?),
            Command::Load(options) => Ok(load::load(*options).await?),
        }
    }
}

impl Overrides {
    /// What was given before a command, then what was given after it.
    fn then(mut self, later: Self) -> Self {
        self.set.extend(later.set);
        Self { config: later.config.or(self.config), set: self.set }
    }

    fn sources(self) -> io::Result<Sources> {
        // A variable that is not UTF-8 cannot be a setting.
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let Self { config, set } = self;
        Ok(Sources { config, working_dir: std::env::current_dir()?, env, set })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn overrides_count_on_either_side_of_a_command() {
        let line = "conexus --config a.toml --set x.a=1 check --set x.b=2 --set x.c=3";
        let Cli { overrides, command } = Cli::parse_from(line.split(' '));
        let Some(Command::Check(more)) = command else { panic!("not the command") };
        let overrides = overrides.then(more);
        assert_eq!(overrides.config, Some("a.toml".into()));
        assert_eq!(overrides.set, ["x.a=1", "x.b=2", "x.c=3"]);
    }

    #[test]
    fn no_command_is_needed() {
        let cli = Cli::parse_from(["conexus", "--set", "log.level=debug"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.overrides.set, ["log.level=debug"]);
    }
}
