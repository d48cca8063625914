//! `state` and `list`: what is known about containers.

use dhow_engine::runtime::oci::{Container, state::Shown};

use super::args::{Given, switch, value};
use super::{Global, Outcome, failed};
use crate::ui::Ui;

/// `state`
pub(super) fn state(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[], words, None)?;
    let container = Container::open(&global.root, given.id("state")?)?;
    ui.line(&serde_json::to_string_pretty(&container.shown(String::new()))?);
    Ok(0)
}

/// `list`
pub(super) fn list(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[value("format", "f"), switch("quiet", "q")], words, None)?;
    let folders = match fs_err::read_dir(&global.root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !global.root_given => Vec::new(),
        folders => folders?.collect::<Result<Vec<_>, _>>()?,
    };
    let mut names: Vec<_> = folders
        .into_iter()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    let all: Vec<Shown> = names
        .iter()
        // One that is just being made or removed is none.
        .filter_map(|name| Some(Container::open(&global.root, name).ok()?.shown(owner(global, name))))
        .collect();
    if given.has("quiet") {
        ui.print(&all.iter().map(|one| format!("{}\n", one.id)).collect::<String>());
        return Ok(0);
    }
    match given.text("format").unwrap_or("table") {
        "table" => ui.print(&table(&all)),
        "json" if all.is_empty() => ui.line("null"),
        "json" => ui.line(&serde_json::to_string(&all)?),
        _ => return Err(failed("invalid format option")),
    }
    Ok(0)
}

/// Who owns a container's folder: the name, or the number.
fn owner(global: &Global, name: &str) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = fs_err::symlink_metadata(global.root.join(name)) else { return String::new() };
    let uid = meta.uid().to_string();
    let users = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| format!("#{uid}"))
}

/// Columns as Go's tabwriter sets them for runc: twelve wide at least, three spaces between.
fn table(all: &[Shown]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = all.iter().map(|one| {
        let bundle = one.bundle.display().to_string();
        [
            one.id.clone(),
            one.pid.to_string(),
            one.status.to_owned(),
            bundle,
            one.created.clone(),
            one.owner.clone(),
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}{}\n", cells.collect::<String>(), row[5])
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_empty_table_is_runc_s() {
        assert_eq!(super::table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }
}
