//! The `--config` file: TOML, one key a setting, nothing nested but the table `[tuning]`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, KEYS, Origin, TUNING_KEYS, value};

/// The file's values as text, by setting.
#[derive(Default)]
pub(super) struct Entries {
    found: BTreeMap<&'static str, (Origin, String)>,
}

impl Entries {
    pub(super) fn get(&self, key: &str) -> Option<(Origin, String)> {
        self.found.get(key).cloned()
    }
}

/// Reads the file's text. Keys may be written with `-` or with `_`.
pub(super) fn parse(file: &str, text: &str) -> Result<Entries, ConfigError> {
    let line_of = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        1 + before.bytes().filter(|b| *b == b'\n').count()
    };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        file: file.to_owned(),
        line: line_of(error.span().map_or(0, |span| span.start)),
        why: error.message().to_owned(),
    })?;
    let mut entries = Entries::default();
    let names = KEYS.map(|(name, _)| name);
    let tuning_names = TUNING_KEYS.map(|(name, _)| name);
    for (key, entry) in table.get_ref() {
        match entry.get_ref() {
            DeValue::Table(inner) if key.get_ref() == TUNING => {
                for (key, entry) in inner {
                    let spelled = format!("{TUNING}.{}", key.get_ref());
                    let line = line_of(key.span().start);
                    entries.add(file, line, &spelled, entry.get_ref(), &tuning_names)?;
                }
            }
            value => {
                let line = line_of(key.span().start);
                entries.add(file, line, key.get_ref(), value, &names)?;
            }
        }
    }
    Ok(entries)
}

impl Entries {
    /// Takes the value of the key `written`, which must be one of `names`.
    fn add(
        &mut self,
        file: &str,
        line: usize,
        written: &str,
        value: &DeValue<'_>,
        names: &[&'static str],
    ) -> Result<(), ConfigError> {
        let wrong = |what, hint| ConfigError::Key {
            file: file.to_owned(),
            line,
            key: written.to_owned(),
            what,
            hint,
        };
        let spelled = written.replace('_', "-");
        let Some(known) = names.iter().copied().find(|name| *name == spelled) else {
            let hint = value::nearest(&spelled, names)
                .map_or_else(String::new, |name| format!(": did you mean {name}?"));
            return Err(wrong("no setting", hint));
        };
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.to_string(),
            _ => return Err(wrong("neither a string nor a whole number", String::new())),
        };
        let origin = Origin::File {
            file: file.to_owned(),
            line,
            key: known,
        };
        if self.found.insert(known, (origin, text)).is_some() {
            return Err(wrong("given twice", String::new()));
        }
        Ok(())
    }
}

/// The one table of the file; its keys are settings without flags.
const TUNING: &str = "tuning";
