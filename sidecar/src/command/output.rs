//! Data on standard output: as a table for people, or as JSON for programs.

use std::{fmt::Display, io::IsTerminal};

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::say::{data, printable};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people; no promise about their order
    #[default]
    Table,
    /// One indented document; of what is watched, one after the other
    Json,
    /// One object a line
    Jsonl,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) head: &'static str,
    /// The width at least, where rows come one by one.
    pub(super) width: usize,
    pub(super) right: bool,
}

/// A field of a row.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl Cell {
    pub(super) fn plain(text: impl Display) -> Self {
        Self { text: printable(&text.to_string()), colour: None }
    }

    pub(super) fn coloured(text: impl Display, colour: Colour) -> Self {
        let code = match colour {
            Colour::Good => "32",
            Colour::Warning => "33",
            Colour::Bad => "31",
            Colour::Dim => "2",
        };
        Self { colour: Some(code), ..Self::plain(text) }
    }

    /// Whether standard output shows colours.
    pub(super) fn shown_in_colour() -> bool {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        std::io::stdout().is_terminal() && !refused
    }

    /// The text, in its colour where those are shown.
    pub(super) fn painted(&self, colour: bool) -> String {
        match self.colour {
            Some(code) if colour => format!("\x1b[{code}m{}\x1b[0m", self.text),
            _ => self.text.clone(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::plain(text)
    }
}

/// How a field stands out where colours are shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Good,
    Warning,
    Bad,
    Dim,
}

/// Prints rows.
#[derive(Debug)]
pub(super) struct Printer {
    format: Format,
    columns: &'static [Column],
    colour: bool,
    headed: bool,
}

impl Printer {
    pub(super) fn new(format: Format, columns: &'static [Column]) -> Self {
        Self { format, columns, colour: Cell::shown_in_colour(), headed: false }
    }

    /// Prints one document, except to people.
    pub(super) fn value(&self, value: &impl Serialize) {
        let text = match self.format {
            Format::Table => return,
            Format::Json => serde_json::to_string_pretty(value),
            Format::Jsonl => serde_json::to_string(value),
        };
        // What is printed here has text for keys, and so cannot fail.
        data((text.unwrap_or_default() + "\n").as_bytes());
    }

    /// Prints one of a series that goes on.
    pub(super) fn event(&mut self, value: &impl Serialize, cells: Vec<Cell>) {
        if self.format != Format::Table {
            return self.value(value);
        }
        let widths: Vec<usize> = self.columns.iter().map(|column| column.width.max(column.head.len())).collect();
        if !std::mem::replace(&mut self.headed, true) {
            data(self.head(&widths).as_bytes());
        }
        data(self.line(&cells, &widths).as_bytes());
    }

    /// Prints rows that are all known: as columns, as one array, or each on a line.
    pub(super) fn all<T: Serialize>(&self, items: &[T], row: impl Fn(&T) -> Vec<Cell>) {
        match self.format {
            Format::Table => {}
            Format::Json => return self.value(&items),
            Format::Jsonl => return items.iter().for_each(|item| self.value(item)),
        }
        let rows: Vec<Vec<Cell>> = items.iter().map(row).collect();
        let width = |at: usize, head: usize| {
            rows.iter().filter_map(|row: &Vec<Cell>| row.get(at)).map(|cell| cell.text.width()).max().unwrap_or(0).max(head)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(at, column)| width(at, column.head.len())).collect();
        let lines: String = rows.iter().map(|row| self.line(row, &widths)).collect();
        data((self.head(&widths) + &lines).as_bytes());
    }

    fn head(&self, widths: &[usize]) -> String {
        let heads: Vec<Cell> = self.columns.iter().map(|column| Cell::coloured(column.head, Colour::Dim)).collect();
        self.line(&heads, widths)
    }

    fn line(&self, cells: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, column), width) in cells.iter().zip(self.columns).zip(widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let room = " ".repeat(width.saturating_sub(cell.text.width()));
            let text = cell.painted(self.colour);
            line.push_str(&if column.right { room + &text } else { text + &room });
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// A value for people.
pub(super) fn value_of(value: Option<&str>, value_b64: Option<&str>) -> String {
    match (value, value_b64) {
        (Some(value), _) => value.to_owned(),
        (None, Some(coded)) => format!("base64:{coded}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { head: "N", width: 4, right: true },
        Column { head: "NAME", width: 6, right: false },
        Column { head: "VALUE", width: 0, right: false },
    ];

    fn line(cells: &[&str]) -> String {
        let printer = Printer { format: Format::Table, columns: &COLUMNS, colour: false, headed: false };
        let cells: Vec<Cell> = cells.iter().map(|text| Cell::from(*text)).collect();
        printer.line(&cells, &[4, 6, 5])
    }

    #[test]
    fn columns_align_by_what_a_terminal_shows() {
        assert_eq!(line(&["12", "ab", "x y"]), "  12  ab      x y\n");
        assert_eq!(line(&["12", "日本", "x"]), "  12  日本    x\n");
        assert_eq!(line(&["1", "", ""]), "   1\n", "no blanks at the end");
        assert_eq!(line(&["1", "longer than it", "x"]), "   1  longer than it  x\n");
        assert_eq!(line(&["1", "a\x1b[2Jb\n", ""]), "   1  a\u{fffd}[2Jb\u{fffd}\n");
    }
}
