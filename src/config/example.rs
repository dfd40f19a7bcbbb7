//! The documented example file: default values in the order of the structs, each with its doc comment above it.

use schemars::schema_for;
use serde_json::Value;

use super::Config;

/// Width comments are wrapped at.
const WIDTH: usize = 100;

/// The file `weir config example` prints. Parses back to the defaults.
pub fn example() -> String {
    let schema = schema_for!(Config).to_value();
    let yaml = serde_saphyr::to_string(&Config::new()).unwrap_or_default();
    let mut out =
        String::from("# Configuration of weir. Everything here is the default and may be left out, except `keys`.\n");
    let mut path: Vec<String> = Vec::new();
    for line in yaml.lines() {
        if let Some((indent, key)) = key_of(line) {
            path.truncate(indent / 2);
            path.push(key.to_owned());
            if path.len() == 1 {
                out.push('\n');
            }
            for comment in wrap(&description(&schema, &path), WIDTH - indent) {
                out.push_str(&format!("{:indent$}# {comment}\n", ""));
            }
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// The path of every key, as the file has them.
pub(super) fn in_order() -> Vec<Vec<String>> {
    let yaml = serde_saphyr::to_string(&Config::new()).unwrap_or_default();
    let mut path: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for line in yaml.lines() {
        if let Some((indent, key)) = key_of(line) {
            path.truncate(indent / 2);
            path.push(key.to_owned());
            all.push(path.clone());
        }
    }
    all
}

/// The key a line begins, and how far it is indented.
fn key_of(line: &str) -> Option<(usize, &str)> {
    let body = line.trim_start();
    let (key, _) = body.split_once(':').filter(|_| !body.starts_with('-'))?;
    Some((line.len() - body.len(), key))
}

/// The field at `path`.
pub(super) fn find<'a>(schema: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(schema, |node, key| {
        resolve(schema, node).get("properties").and_then(|p| p.get(key)).unwrap_or(&Value::Null)
    })
}

/// The doc comment of the field at `path`.
pub(super) fn description(schema: &Value, path: &[String]) -> String {
    let node = find(schema, path);
    // The comment of the field wins over that of its type.
    let own = node.get("description").or_else(|| resolve(schema, node).get("description"));
    own.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Follow `$ref` to the definition.
pub(super) fn resolve<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    let Some(name) = node.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) else {
        return node;
    };
    schema.get("$defs").and_then(|defs| defs.get(name)).unwrap_or(&Value::Null)
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
