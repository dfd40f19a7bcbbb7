//! The page `docs/configuration.md`: every key with its default and its doc comment, from where the example file has them.

use std::fmt::Write as _;

use schemars::schema_for;
use serde_json::Value;

use super::Config;
use super::example::{description, find, in_order, resolve};

/// What `weir reference configuration` prints.
pub fn page() -> String {
    let schema = schema_for!(Config).to_value();
    let defaults = serde_json::to_value(Config::new()).unwrap_or_default();
    let mut page = Page { schema: &schema, sections: vec![Section::default()] };
    for path in in_order() {
        page.key(&path, at(&defaults, &path));
    }
    page.sections.iter().fold(INTRODUCTION.to_owned(), |text, section| text + &section.text())
}

const INTRODUCTION: &str = "# Configuration

Every key of `weir.yaml` with its default. Written by `weir reference configuration > docs/configuration.md`; `weir config example`
prints the same as a file to begin with, `weir config check` says what is wrong with one. Keys with `[]` are those of entries of a list.
";

/// Keys that stand together in the file. The first section is the file itself.
#[derive(Default)]
struct Section {
    path: Vec<String>,
    doc: String,
    rows: String,
}

impl Section {
    fn text(&self) -> String {
        let Self { path, doc, rows } = self;
        let head = "| key | default | meaning |\n|---|---|---|\n";
        if path.is_empty() {
            return format!("\n{head}{rows}");
        }
        format!("\n{} `{}`\n\n{doc}\n\n{head}{rows}", "#".repeat(path.len() + 1), path.join("."))
    }

    fn row(&mut self, name: &str, default: &Value, doc: &str) {
        // Of secrets nothing is shown, not even that there is none.
        let is_said = !default.is_null() && default.as_str() != Some("***");
        let default = if is_said { format!("`{default}`") } else { String::new() };
        let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        // Writing to a string cannot fail.
        let _ = writeln!(self.rows, "| `{name}` | {default} | {doc} |");
    }
}

struct Page<'a> {
    schema: &'a Value,
    sections: Vec<Section>,
}

impl Page<'_> {
    fn key(&mut self, path: &[String], default: &Value) {
        let Some((_, parent)) = path.split_last() else { return };
        let doc = description(self.schema, path);
        if default.as_object().is_some_and(|keys| !keys.is_empty()) {
            self.sections.push(Section { path: path.to_vec(), doc, rows: String::new() });
            return;
        }
        let name = path.join(".");
        let entries = self.entries(path);
        // Keys of a section may go on behind those of one inside it.
        let Some(section) = self.sections.iter_mut().find(|section| section.path == parent) else { return };
        section.row(&name, default, &doc);
        for (key, default, doc) in entries {
            section.row(&format!("{name}[].{key}"), &default, &doc);
        }
    }

    /// Name, default and meaning of what each entry of a list has.
    fn entries(&self, path: &[String]) -> Vec<(String, Value, String)> {
        let list = find(self.schema, path);
        let entry = resolve(self.schema, list.get("items").unwrap_or(&Value::Null));
        let keys = entry.get("properties").and_then(Value::as_object).into_iter().flatten();
        let told = |(name, node): (&String, &Value)| {
            let doc = node.get("description").or_else(|| resolve(self.schema, node).get("description"));
            let doc = doc.and_then(Value::as_str).unwrap_or_default().to_owned();
            (name.clone(), node.get("default").cloned().unwrap_or_default(), doc)
        };
        keys.map(told).collect()
    }
}

fn at<'a>(defaults: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(defaults, |node, key| node.get(key).unwrap_or(&Value::Null))
}
