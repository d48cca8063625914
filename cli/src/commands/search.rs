//! `search`: find images at Docker Hub or another registry.

use anyhow::{Result, bail};
use clap::Args;
use dhow_engine::Error;
use dhow_engine::images::registry::{Found, search};
use dhow_engine::images::{DEFAULT_REGISTRY, Reference};
use serde_json::{Value, json};

use crate::registries;
use crate::table;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Show only what fits: `stars=COUNT` (at least), `is-official=true`, `is-automated=false`
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a Go template such as `{{.Name}}: {{.StarCount}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show at most so many, 1 to 100 [default: 25]
    #[arg(long, value_name = "COUNT", default_value_t = 25, hide_default_value = true)]
    limit: usize,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    /// Words to look for; with a registry before them (`127.0.0.1:5000/tools`), there instead of at Docker Hub
    #[arg(value_name = "TERM")]
    term: String,
}

/// Docker's limit for a description in the table.
const WIDEST: usize = 45;

/// What a result must be.
#[derive(Debug, Default)]
struct Filters {
    stars: u64,
    official: Option<bool>,
    automated: Option<bool>,
}

pub(crate) fn run(ui: &Ui, args: &SearchArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter)?;
    if !(1..=100).contains(&args.limit) {
        bail!("Limit {} is outside the range of [1, 100]", args.limit);
    }
    let (registry, term) = split(&args.term);
    let mut access = registries::without_credentials(&registry)?;
    access.credentials = registries::stored(&registry)?;
    let found = search(&registry, term, args.limit, &access).map_err(Error::from)?;
    let rows: Vec<Value> = found
        .into_iter()
        .filter(|found| filters.fit(found))
        .map(|found| row(found, &registry, args.no_trunc))
        .collect();
    let columns = [
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ];
    ui.print(&table::render_format(args.format.as_deref(), &columns, &rows)?);
    Ok(0)
}

/// A registry is told from a folder as in the names of images.
fn split(term: &str) -> (String, &str) {
    if let Some((first, rest)) = term.split_once('/')
        && let Ok(name) = Reference::parse(&format!("{first}/x"))
        && name.registry() == first
    {
        return (first.to_owned(), rest);
    }
    (DEFAULT_REGISTRY.to_owned(), term)
}

fn row(found: Found, registry: &str, whole: bool) -> Value {
    let name = if registry == DEFAULT_REGISTRY { found.name } else { format!("{registry}/{}", found.name) };
    let description = found.description.replace(['\n', '\r'], " ");
    let description = if whole || description.chars().count() <= WIDEST {
        description
    } else {
        description.chars().take(WIDEST - 1).chain(['…']).collect()
    };
    let ok = |is: bool| if is { "[OK]" } else { "" };
    json!({
        "Name": name,
        "Description": description,
        "StarCount": found.stars.to_string(),
        "IsOfficial": ok(found.official),
        "IsAutomated": ok(found.automated),
    })
}

impl Filters {
    fn parse(texts: &[String]) -> Result<Self> {
        let mut filters = Self::default();
        for text in texts {
            let Some((name, value)) = text.split_once('=') else {
                bail!(
                    "invalid argument \"{text}\" for \"-f, --filter\" flag: invalid filter: expected NAME=VALUE"
                );
            };
            let switch = || match value {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => bail!("invalid filter '{name}={value}'"),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "stars" => match value.parse::<u64>() {
                    Ok(stars) => filters.stars = filters.stars.max(stars),
                    Err(_) => bail!("invalid filter 'stars={value}'"),
                },
                "is-official" => filters.official = Some(switch()?),
                "is-automated" => filters.automated = Some(switch()?),
                other => bail!("invalid filter '{other}'"),
            }
        }
        Ok(filters)
    }

    fn fit(&self, found: &Found) -> bool {
        found.stars >= self.stars
            && self.official.is_none_or(|wanted| wanted == found.official)
            && self.automated.is_none_or(|wanted| wanted == found.automated)
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn registries_are_told_from_folders() {
        for (term, registry, rest) in [
            ("debian", "docker.io", "debian"),
            ("library/debian", "docker.io", "library/debian"),
            ("127.0.0.1:5000/deb", "127.0.0.1:5000", "deb"),
            ("localhost/a/b", "localhost", "a/b"),
            ("quay.io/x", "quay.io", "x"),
            ("quay.io/", "quay.io", ""),
            ("a b/c", "docker.io", "a b/c"),
        ] {
            assert_eq!(split(term), (registry.to_owned(), rest), "{term}");
        }
    }
}
