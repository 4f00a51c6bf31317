//! The `_overflow` column: a JSON object of the fields that found no column of their own. Written here and read here.
//!
//! Invariant: names and values are kept as they came; a name that came twice gives its first value.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use serde_json::Value;

use super::quote::Quote;

/// Appends one field to an object that starts empty; `json` is the value as JSON text. [`close`] ends the object. What a
/// JSON reader refuses (1e400, NaN, 007, too many brackets in each other) stands there as text.
pub fn push(object: &mut String, name: &str, json: &str) {
    object.push(if object.is_empty() { '{' } else { ',' });
    push_string(object, name);
    object.push(':');
    // As deep as it will lie in the object: readers have a limit.
    if serde_json::from_str::<[Value; 1]>(&format!("[{json}]")).is_ok() {
        object.push_str(json);
    } else {
        push_string(object, json);
    }
}

/// Appends a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    Quote::Json.write(text, &mut quoted);
    out.push('"');
    // Quoting keeps UTF-8 whole, so nothing is lost here.
    out.push_str(&String::from_utf8_lossy(&quoted));
    out.push('"');
}

/// Ends an object that [`push`] began.
pub fn close(object: &mut String) {
    if !object.is_empty() {
        object.push('}');
    }
}

/// The values of one overflow field as text, null where a record does not have it: strings without quotes, numbers and
/// booleans as JSON writes them, objects and arrays as JSON. **Shape**: as long as `overflow`, which is `Utf8` or `Utf8View`.
pub fn extract(overflow: &ArrayRef, name: &str) -> StringArray {
    let mut out = StringBuilder::with_capacity(overflow.len(), 0);
    let mut needle = String::new();
    push_string(&mut needle, name);
    let finder = memchr::memmem::Finder::new(needle.as_bytes());
    for row in 0..overflow.len() {
        // Most records do not have the field: parse only those that name it.
        let object = text_at(overflow, row).filter(|object| finder.find(object.as_bytes()).is_some());
        out.append_option(object.and_then(|object| field(object, name)));
    }
    out.finish()
}

/// Names of the fields in an overflow column, sorted.
pub fn names(overflow: &ArrayRef) -> Vec<String> {
    let mut names = std::collections::BTreeSet::new();
    for row in 0..overflow.len() {
        if let Some(object) = text_at(overflow, row)
            && let Ok(fields) = serde_json::from_str::<Fields>(object)
        {
            names.extend(fields.0.into_iter().map(|(name, _)| name));
        }
    }
    names.into_iter().collect()
}

fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    match array.data_type() {
        _ if array.is_null(row) => None,
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        _ => None,
    }
}

fn field(object: &str, name: &str) -> Option<String> {
    let fields: Fields = serde_json::from_str(object).ok()?;
    let (_, value) = fields.0.into_iter().find(|(found, _)| found == name)?;
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// The members of an object in their order, doubles included.
struct Fields(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(member) = map.next_entry::<String, Value>()? {
                    fields.push(member);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn fields_are_found() {
        let mut object = String::new();
        push(&mut object, "a\"b", "\"x\\ny\"");
        push(&mut object, "n", "12.5");
        push(&mut object, "n", "13");
        push(&mut object, "o", "[1,2]");
        push(&mut object, "z", "null");
        close(&mut object);
        let column: ArrayRef = Arc::new(StringArray::from(vec![Some(object.as_str()), None, Some("{}")]));
        let view = arrow::compute::cast(&column, &DataType::Utf8View).unwrap();
        for column in [column, view] {
            let get = |name: &str| extract(&column, name).iter().next().unwrap().map(str::to_string);
            assert_eq!(get("a\"b").as_deref(), Some("x\ny"));
            assert_eq!(get("n").as_deref(), Some("12.5"));
            assert_eq!(get("o").as_deref(), Some("[1,2]"));
            assert_eq!(get("z"), None);
            assert_eq!(get("absent"), None);
            assert_eq!(names(&column), ["a\"b", "n", "o", "z"]);
            assert_eq!(extract(&column, "n").len(), 3);
        }
    }
}
