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
        let body = line.trim_start();
        let indent = line.len() - body.len();
        if let Some((key, _)) = body.split_once(':')
            && !body.starts_with('-')
        {
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

/// The doc comment of the field at `path`.
fn description(schema: &Value, path: &[String]) -> String {
    let mut node = schema;
    for key in path {
        node = resolve(schema, node).get("properties").and_then(|p| p.get(key)).unwrap_or(&Value::Null);
    }
    // The comment of the field wins over that of its type.
    let own = node.get("description").or_else(|| resolve(schema, node).get("description"));
    own.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Follow `$ref` to the definition.
fn resolve<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
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
