//! Links of lines to other systems: as `jsonData.links` has them, checked, and what each finds in a line.
//! Not how a frame carries them (`frame/links`). Invariant: what [`tried`] tells of a line, a frame with it has too.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Error;

/// The field of a link that names none: the line itself.
const MESSAGE: &str = "message";

/// A link to another system from a field of a line, or from what a pattern finds in it.
#[derive(Debug, Clone)]
pub struct Link {
    /// What it is called in the line's details.
    pub name: String,
    /// What its button says.
    pub title: String,
    /// The field it starts from; `message` for the line itself.
    pub field: String,
    /// What to look for in the field: the first group, or all that was found. `None`: the field's whole value.
    pub pattern: Option<Regex>,
    /// Where it leads to.
    pub target: LinkTarget,
}

/// Where a link leads to. In both, `${__value.raw}` stands for the value.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkTarget {
    /// A page.
    Url(String),
    /// A query in another data source.
    Query { datasource_uid: String, datasource_name: String, query: Value },
}

impl Link {
    /// The link's value in a text of its field, if it has one there.
    pub fn found<'a>(&self, text: &'a str) -> Option<&'a str> {
        let value = match &self.pattern {
            None => text,
            Some(pattern) => {
                let found = pattern.captures(text)?;
                found.get(1).or_else(|| found.get(0))?.as_str()
            }
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

/// One of `jsonData.links`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LinkForm {
    name: String,
    title: String,
    field: String,
    pattern: String,
    url: String,
    datasource_uid: String,
    datasource_name: String,
    /// The query to ask there: an object, or the text of one, or what stands in `query` of one.
    query: Value,
}

impl LinkForm {
    fn name(&self) -> &str {
        [self.name.trim(), self.field.trim()].into_iter().find(|text| !text.is_empty()).unwrap_or(MESSAGE)
    }

    /// `None` for a row of the form that was not filled in yet.
    pub(super) fn parse(self) -> Result<Option<Link>, Error> {
        let name = self.name().to_owned();
        let text = |text: &str, or: &str| if text.trim().is_empty() { or } else { text.trim() }.to_owned();
        let (url, datasource_uid) = (text(&self.url, ""), text(&self.datasource_uid, ""));
        let target = match (datasource_uid.is_empty(), url.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => LinkTarget::Url(url),
            (false, _) => LinkTarget::Query {
                datasource_name: text(&self.datasource_name, &datasource_uid),
                query: link_query(self.query),
                datasource_uid,
            },
        };
        let pattern = self.pattern.trim();
        let bad = |error: regex::Error| Error::BadPattern { link: name.clone(), reason: error.to_string() };
        let pattern = (!pattern.is_empty()).then(|| Regex::new(pattern).map_err(bad)).transpose()?;
        Ok(Some(Link { title: text(&self.title, &name), field: text(&self.field, MESSAGE), name, pattern, target }))
    }
}

fn link_query(query: Value) -> Value {
    match query {
        Value::Object(_) => query,
        Value::String(text) if !text.trim().is_empty() => match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => object,
            _ => json!({"query": text}),
        },
        _ => json!({"query": "${__value.raw}"}),
    }
}

/// What links that are still being written find in a line. `body`: `{"links": [as in jsonData], "line": text}`; a line that
/// is a JSON object has its members as fields, any other is a message. **Shape**: a list, one item for each link:
/// `{"name", "field", "value"?, "problem"?}`. **Errors**: a body of another shape, in words.
pub fn tried(body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    struct Body {
        links: Vec<LinkForm>,
        line: String,
    }
    let Body { links, line } = serde_json::from_slice(body)
        .map_err(|error| format!("the body is not JSON with 'links' and 'line': {error}"))?;
    let fields = fields_of(&line);
    Ok(links.into_iter().map(|link| tried_one(link, &fields)).collect())
}

fn tried_one(form: LinkForm, fields: &BTreeMap<String, String>) -> Value {
    let mut told = json!({"name": form.name()});
    match form.parse() {
        Ok(None) => told["problem"] = json!("it leads nowhere yet: give a URL, or choose a data source"),
        Err(error) => told["problem"] = json!(error.to_string()),
        Ok(Some(link)) => {
            if let Some(value) = fields.get(&link.field).and_then(|text| link.found(text)) {
                told["value"] = json!(value);
            }
            told["field"] = json!(link.field);
        }
    }
    told
}

/// The fields of a line that someone pasted; without a message of its own, the text is it.
fn fields_of(line: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    if let Ok(object @ Value::Object(_)) = serde_json::from_str(line.trim()) {
        flatten("", &object, &mut fields);
    }
    fields.entry(MESSAGE.to_owned()).or_insert_with(|| line.to_owned());
    fields
}

/// Nested names are joined by dots, as the store does.
fn flatten(name: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(&name, value, fields);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(fields.insert(name.to_owned(), text.clone())),
        other => drop(fields.insert(name.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_tried_on_a_line_while_they_are_written() {
        let check = |link: Value, line: &str, expect: Value| {
            let body = json!({"links": [link], "line": line}).to_string();
            assert_eq!(tried(body.as_bytes()), Ok(json!([expect])), "{line}");
        };
        let json_line = r#"{"order_id":77,"user":{"name":"ada"},"message":"paid order=A-1"}"#;
        let found = |name: &str, field: &str, value: &str| json!({"name": name, "field": field, "value": value});
        check(json!({"field": "order_id", "url": "u"}), json_line, found("order_id", "order_id", "77"));
        check(json!({"name": "who", "field": "user.name", "url": "u"}), json_line, found("who", "user.name", "ada"));
        let order = json!({"name": "order", "pattern": r"order=(\S+)", "url": "u"});
        check(order.clone(), json_line, found("order", "message", "A-1"));
        check(order.clone(), "paid order=B-2 now", found("order", "message", "B-2"));
        check(order, "paid", json!({"name": "order", "field": "message"}));
        check(json!({"pattern": "(?i)PAID", "datasourceUid": "x"}), "paid", found("message", "message", "paid"));
        let nowhere = json!({"name": "x", "problem": "it leads nowhere yet: give a URL, or choose a data source"});
        check(json!({"name": "x"}), "paid", nowhere);
        let answer = tried(br#"{"links":[{"name":"x","url":"u","pattern":"("}],"line":""}"#).expect("a list");
        let problem = answer[0]["problem"].as_str().expect("a problem");
        assert!(problem.starts_with("the pattern of the link 'x' cannot be read"), "{problem}");
        assert!(tried(b"{}").expect_err("no links").starts_with("the body is not JSON with 'links'"));
    }

    #[test]
    fn a_button_says_the_title_or_the_name() {
        let title = |json: &str| {
            let form: LinkForm = serde_json::from_str(json).expect("a form");
            form.parse().expect("fine").expect("complete").title
        };
        assert_eq!(title(r#"{"name":"order","title":"Open the shop","url":"u"}"#), "Open the shop");
        assert_eq!(title(r#"{"name":"order","title":" ","url":"u"}"#), "order");
    }
}
