//! `login` and `logout`: prove credentials to a registry and keep them where Docker keeps them.

use std::io::{IsTerminal as _, Read as _, stdin};

use anyhow::Result;
use clap::Args;
use dhow_engine::Error;
use dhow_engine::images::registry::{Access, Client, Credentials, DockerConfig, registry_of};

use crate::error::hinted;
use crate::prompt;
use crate::registries::{self, run_helper};
use crate::ui::Ui;

/// Longest password that is read from standard input, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password or access token; others can see it in the list of processes
    #[arg(short, long)]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// host[:port] [default: Docker Hub]
    server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// host[:port] [default: Docker Hub]
    server: Option<String>,
}

pub(crate) fn login(ui: &Ui, args: &LoginArgs) -> Result<u8> {
    let registry = registry_of(args.server.as_deref().unwrap_or_default());
    if args.password.is_some() {
        ui.note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if args.password_stdin {
            return Err(hinted(
                "--password and --password-stdin are mutually exclusive",
                "leave --password out",
            ));
        }
    }
    if args.password_stdin && args.username.as_deref().unwrap_or_default().is_empty() {
        return Err(hinted("Must provide --username with --password-stdin", "name the user with `-u NAME`"));
    }
    let mut config = registries::docker_config()?
        .ok_or_else(|| hinted("there is no place for credentials", "set HOME or DOCKER_CONFIG"))?;
    let access = registries::without_credentials(registry)?;
    if args.username.is_none()
        && args.password.is_none()
        && let Some(stored) = registries::stored(registry)?
    {
        ui.note("Authenticating with existing credentials...");
        let known = Access { credentials: Some(stored), ..access.clone() };
        match prove(registry, &known) {
            Ok(_) => {
                ui.line("Login Succeeded");
                return Ok(0);
            }
            Err(error) => ui.note(&format!("Login did not succeed, error: {error}")),
        }
    }
    let (user, password) = ask(ui, args, registry, &config)?;
    let typed = Credentials::Basic { user: user.clone(), password };
    let kept = match prove(registry, &Access { credentials: Some(typed.clone()), ..access })? {
        Some(token) => Credentials::IdentityToken(token),
        None => typed,
    };
    if config.helper(registry).is_none() {
        ui.note(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            config.path().display()
        ));
    }
    config.store(registry, &user, &kept, &run_helper).map_err(Error::from)?;
    config.save().map_err(Error::from)?;
    ui.line("Login Succeeded");
    Ok(0)
}

pub(crate) fn logout(ui: &Ui, args: &LogoutArgs) -> Result<u8> {
    let registry = registry_of(args.server.as_deref().unwrap_or_default());
    let shown = if registry == registry_of("") { "https://index.docker.io/v1/" } else { registry };
    let Some(mut config) = registries::docker_config()? else {
        ui.line(&format!("Not logged in to {shown}"));
        return Ok(0);
    };
    ui.line(&format!("Removing login credentials for {shown}"));
    if config.erase(registry, &run_helper).map_err(Error::from)? {
        config.save().map_err(Error::from)?;
    }
    Ok(0)
}

/// Asks the registry whether it knows the user; what it gives to keep in place of the password.
fn prove(registry: &str, access: &Access) -> Result<Option<String>> {
    let client = Client::connect_registry(registry, access).map_err(Error::from)?;
    Ok(client.login().map_err(Error::from)?)
}

/// User and password from the options, standard input or the terminal.
fn ask(ui: &Ui, args: &LoginArgs, registry: &str, config: &DockerConfig) -> Result<(String, String)> {
    let known = config.user(registry);
    if args.password_stdin {
        let mut password = String::new();
        stdin().take(MAX_PASSWORD + 1).read_to_string(&mut password)?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.len() as u64 > MAX_PASSWORD {
            return Err(hinted(
                "no password on standard input",
                "pipe it in: `dhow login … --password-stdin < FILE`",
            ));
        }
        return Ok((args.username.clone().unwrap_or_default(), password.to_owned()));
    }
    if let (Some(user), Some(password)) = (&args.username, &args.password)
        && !user.is_empty()
    {
        return Ok((user.clone(), password.clone()));
    }
    if !stdin().is_terminal() {
        return Err(hinted(
            "Cannot perform an interactive login from a non TTY device",
            "give `-u NAME --password-stdin`, or use a terminal",
        ));
    }
    let user = match &args.username {
        Some(user) if !user.is_empty() => user.clone(),
        _ => {
            if registry == registry_of("") {
                ui.note("Log in with your Docker ID to pull and push images of Docker Hub (https://hub.docker.com).");
            }
            let default = known.as_deref().map(|user| format!(" ({user})")).unwrap_or_default();
            let typed = prompt::ask(&format!("Username{default}: "), true)?;
            match (typed.trim(), known) {
                ("", Some(known)) => known,
                ("", None) => return Err(hinted("username is required", "give `-u NAME`")),
                (typed, _) => typed.to_owned(),
            }
        }
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => prompt::ask("Password: ", false)?,
    };
    if password.is_empty() {
        return Err(hinted("password is required", "type the password or an access token"));
    }
    Ok((user, password))
}
