//! Columns of text.

use std::fmt;

/// A table: a head and rows of as many cells.
pub(super) struct Table {
    columns: usize,
    cells: Vec<String>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Table {
        Table {
            columns: head.len(),
            cells: head.iter().map(|&cell| cell.to_owned()).collect(),
        }
    }

    /// Adds a row; cells too many are left out, and missing ones empty.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let end = self.cells.len() + self.columns;
        self.cells.extend(cells.into_iter().take(self.columns));
        self.cells.resize(end, String::new());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width_of = |cell: &String| cell.chars().count();
        let width = |column: usize| {
            let cells = self.cells.iter().skip(column).step_by(self.columns);
            cells.map(width_of).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns).map(width).collect();
        for row in self.cells.chunks(self.columns) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let gap = width + GAP - width_of(cell);
                line.extend(std::iter::repeat_n(' ', gap));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Spaces between columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_in_no_spaces() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(["é".to_owned(), "1".to_owned()]);
        table.row(["longer".to_owned()]);
        table.row(["a", "b", "c"].map(str::to_owned));
        assert_eq!(
            table.to_string(),
            "NAME    N\né       1\nlonger\na       b\n"
        );
    }
}
