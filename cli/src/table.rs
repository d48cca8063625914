//! Tables and lists, laid out as Docker's listings are.
//!
//! What a row contains is the command's matter: an object whose keys are the names usable in `--format`.
//! A row's `Labels` may be an object; it then prints as `a=b,c=d`, and `.Label "a"` finds its entries.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::template::{Template, TemplateError, unescape};

/// Spaces between two columns.
const GAP: usize = 3;

/// Columns are not narrower than this, the gap included.
const LEAST: usize = 10;

/// A listing in the format that the user asked for.
///
/// * none or `table`: the `columns` (key and title) under their titles;
/// * `table TEMPLATE`: columns separated by tabs, the titles taken from `columns` or made of the keys;
/// * `json`: one object per line;
/// * any other template: one line per row.
pub(crate) fn render_format(
    format: Option<&str>,
    columns: &[(&str, &str)],
    rows: &[Value],
) -> Result<String, TemplateError> {
    let format = format.unwrap_or_default();
    let body = match format {
        "" => Some(Cow::Borrowed("")),
        "json" => Some(Cow::Borrowed("{{json .}}")),
        format => format.strip_prefix("table").map(|rest| Cow::Owned(unescape(rest.trim_matches(' ')))),
    };
    let is_table = format.is_empty() || format.starts_with("table");
    let body = match body {
        Some(body) if body.is_empty() => {
            let fields: Vec<_> = columns.iter().map(|(key, _)| format!("{{{{.{key}}}}}")).collect();
            Cow::Owned(fields.join("\t"))
        }
        Some(body) => body,
        None => Cow::Owned(unescape(format.trim_matches(' '))),
    };
    let template = Template::parse(&body)?;
    let mut text = String::new();
    if is_table {
        let titles: Map<String, Value> =
            columns.iter().map(|(key, title)| ((*key).to_owned(), (*title).into())).collect();
        text.push_str(&template.render_header(&Value::Object(titles)));
        text.push('\n');
    }
    for row in rows {
        let (row, labels) = prepared(row, is_table);
        text.push_str(&template.render_row(&row, &labels)?);
        text.push('\n');
    }
    Ok(if is_table { align(&text) } else { text })
}

/// A table of cells that are there already, under these titles. What a long list without a format takes: it needs no
/// template and no row with everything that a template could ask for.
pub(crate) fn render_cells<const N: usize>(
    titles: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut text = titles.join("\t");
    text.push('\n');
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            if i > 0 {
                text.push('\t');
            }
            if cell.chars().any(char::is_control) {
                text.push_str(&printable(cell));
            } else {
                text.push_str(cell);
            }
        }
        text.push('\n');
    }
    align(&text)
}

/// The row with its labels as one string, and the labels by name. In tables, nothing in a value can move the cursor.
fn prepared(row: &Value, is_table: bool) -> (Value, Map<String, Value>) {
    let mut row = row.clone();
    let mut labels = Map::new();
    if let Value::Object(fields) = &mut row {
        if let Some(Value::Object(map)) = fields.get_mut("Labels").map(Value::take) {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let mut joined: Vec<_> =
                map.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
            joined.sort();
            fields.insert("Labels".to_owned(), joined.join(",").into());
            labels = map;
        }
        if is_table {
            for value in fields.values_mut().chain(labels.values_mut()) {
                if let Value::String(text) = value
                    && text.chars().any(char::is_control)
                {
                    *text = printable(text);
                }
            }
        }
    }
    (row, labels)
}

/// White space becomes a space, other control characters U+FFFD.
pub(crate) fn printable(text: &str) -> String {
    let replace = |c: char| match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(replace).collect()
}

/// Replaces tabs by spaces such that the cells of adjacent lines are below each other.
/// As with Go's `tabwriter`, a line without a tab there ends a column.
fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        // The last cell of a line belongs to no column.
        let in_column = |cells: &Vec<&str>| cells.len() > column + 1;
        let mut start = 0;
        for block in lines.chunk_by(|a, b| in_column(a) == in_column(b)) {
            let widest =
                block.iter().filter_map(|cells| cells.get(column)).map(|cell| width(cell)).max().unwrap_or(0);
            for line in widths.iter_mut().skip(start).take(block.len()) {
                if let Some(slot) = line.get_mut(column) {
                    *slot = (widest + GAP).max(LEAST);
                }
            }
            start += block.len();
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        let mut line = String::new();
        for (i, (cell, column)) in cells.iter().zip(widths).enumerate() {
            line.push_str(cell);
            if i + 1 < cells.len() {
                line.extend(std::iter::repeat_n(' ', column.saturating_sub(width(cell))));
            }
        }
        out.push_str(line.trim_end_matches(' '));
        out.push('\n');
    }
    out
}

/// The columns of Docker's `top`: not narrower than 20, and nothing between two lines ends one.
#[cfg(target_os = "linux")]
pub(crate) fn align_wide<'a>(lines: impl Iterator<Item = &'a [String]>) -> String {
    const LEAST: usize = 20;
    let lines: Vec<Vec<String>> =
        lines.map(|cells| cells.iter().map(|cell| printable(cell)).collect()).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        let cells = lines.iter().filter_map(|cells: &Vec<String>| cells.get(column));
        (cells.map(|cell| width(cell)).max().unwrap_or(0) + GAP).max(LEAST)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let mut out = String::new();
    for cells in &lines {
        for (i, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', widths[i].saturating_sub(width(cell))));
            }
        }
        out.push('\n');
    }
    out
}

/// Columns that `text` takes on a terminal: 2 for East Asian wide characters and emoji, 0 for combining marks.
/// The few ranges that names really contain, not all of Unicode.
fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let one = |c: char| match c {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    };
    text.chars().map(one).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{align, render_cells, render_format};

    const COLUMNS: [(&str, &str); 3] = [("ID", "CONTAINER ID"), ("Image", "IMAGE"), ("Names", "NAMES")];

    fn rows() -> Vec<Value> {
        vec![
            json!({"ID": "0123456789ab", "Image": "hello:1", "Names": "a", "Labels": {"x.y": "1", "b": "c,d"}}),
            json!({"ID": "ba9876543210", "Image": "debian:local", "Names": "", "Labels": {}}),
        ]
    }

    fn render(format: &str) -> String {
        render_format(Some(format), &COLUMNS, &rows()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn default_table() {
        let want = "CONTAINER ID   IMAGE          NAMES\n\
                    0123456789ab   hello:1        a\n\
                    ba9876543210   debian:local\n";
        assert_eq!(render("table"), want);
        assert_eq!(render(""), want);
        assert_eq!(render_format(None, &COLUMNS, &rows()).as_deref(), Ok(want));
        assert_eq!(render_format(None, &COLUMNS, &[]).as_deref(), Ok("CONTAINER ID   IMAGE     NAMES\n"));
    }

    #[test]
    fn table_templates() {
        let labels = render(r#"table {{.Names}}\t{{.Label "com.x_y"}}\t{{.Labels}}\t{{.Image}}"#);
        assert_eq!(labels.lines().next(), Some("NAMES     x y       LABELS        IMAGE"));
        let labels = render(r#"table {{.Names}}\t{{.Label "x.y"}}\t{{.Labels}}\t{{.Image}}"#);
        let lines: Vec<&str> = labels.lines().collect();
        assert_eq!(
            lines,
            [
                "NAMES     y         LABELS        IMAGE",
                "a         1         b=c,d,x.y=1   hello:1",
                "                                  debian:local",
            ]
        );
        assert!(render("table {{.Zz}}").contains("map has no entry"));
        assert!(render("table {{").starts_with("template parsing error: "));
        assert_eq!(render_format(Some("table {{.CreatedAt}}"), &COLUMNS, &[]).as_deref(), Ok("CREATED AT\n"));
    }

    #[test]
    fn lists() {
        assert_eq!(render("{{.ID}}: {{.Names}}"), "0123456789ab: a\nba9876543210: \n");
        assert_eq!(render(r"{{.Names}}\t{{.ID}}"), "a\t0123456789ab\n\tba9876543210\n");
        let first = render("json").lines().next().map(str::to_owned).unwrap_or_default();
        let back: Value = serde_json::from_str(&first).expect("a line is an object");
        assert_eq!(back["Labels"], "b=c,d,x.y=1");
        assert_eq!(render_format(Some("json"), &COLUMNS, &[]).as_deref(), Ok(""));
        assert_eq!(render_format(Some("{{.ID}}"), &COLUMNS, &[]).as_deref(), Ok(""));
    }

    #[test]
    fn hostile_cells_stay_in_their_column() {
        let row = json!({"ID": "a\tb\nc", "Image": "\u{1b}[2J", "Names": "ok"});
        let table = render_format(None, &COLUMNS, std::slice::from_ref(&row));
        let cells = ["ID", "Image", "Names"].map(|key| row[key].as_str().unwrap_or_default().to_owned());
        assert_eq!(Ok(render_cells(COLUMNS.map(|(_, title)| title), [cells])), table);
        assert_eq!(
            table.as_deref(),
            Ok("CONTAINER ID   IMAGE     NAMES\na b c          \u{fffd}[2J      ok\n")
        );
        // Scripts get what there is.
        assert_eq!(render_format(Some("{{.Image}}"), &COLUMNS, &[row]).as_deref(), Ok("\u{1b}[2J\n"));
    }

    #[test]
    fn a_line_without_a_tab_ends_a_column() {
        assert_eq!(
            align("a\tb\nlong long long\tc\nx\ny\tz\n"),
            "a                b\nlong long long   c\nx\ny         z\n"
        );
        assert_eq!(align("数据数据数据\tx\ne\u{301}\ty\n"), "数据数据数据   x\ne\u{301}              y\n");
        assert_eq!(align(""), "");
        assert_eq!(align("\t\t\n\n"), "\n\n");
    }
}
