//! Fields of a log frame that carry links: from a trace id to the trace and to all its lines, from any field or pattern
//! to another system, from a line that was cut to the whole of it. Grafana shows each as a field of its own.
//! Invariant: a field is only there when a row has a value for it.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::{Error, Field};
use crate::settings::{Link, LinkTarget, Links, Own, Traces};

/// Around a trace id's lines: a request's services log before and after what the panel shows.
const TRACE_WIDEN: &str = "1h";
/// Stands for the field's value in every link.
const VALUE: &str = "${__value.raw}";

/// One field per trace id that has a value here. It has the name of the label it is made from, so that Grafana's list of
/// fields has the two as one.
pub fn trace_fields(rows: &RecordBatch, links: &Links) -> Result<Vec<Field>, Error> {
    let mut fields = Vec::new();
    for name in &links.traces.field_names {
        let buttons = trace_links(&links.traces, links.own.as_ref(), name);
        let Some(ids) = texts(rows, name)?.filter(|_| !buttons.is_empty()) else { continue };
        let ids: StringArray = ids.iter().map(|id| id.filter(|id| !id.is_empty())).collect();
        fields.extend(linked(name, name, ids, &buttons));
    }
    Ok(fields)
}

/// One field per link of the data source that finds something here.
pub fn other_fields(rows: &RecordBatch, links: &[Link]) -> Result<Vec<Field>, Error> {
    let mut fields: Vec<Field> = Vec::new();
    for link in links {
        let Some(texts) = texts(rows, &link.field)? else { continue };
        let values: StringArray = texts.iter().map(|text| text.and_then(|text| link.found(text))).collect();
        let target = match &link.target {
            LinkTarget::Url(url) => json!({"title": link.title, "url": url, "targetBlank": true}),
            LinkTarget::Query { datasource_uid, datasource_name, query } => {
                internal(&link.title, datasource_uid, datasource_name, query.clone())
            }
        };
        fields.extend(linked(&link.name, &link.name, values, &[target]));
    }
    Ok(fields)
}

/// The ids of lines that were cut, with a link to each whole line.
pub fn whole_lines(ids: StringArray, own: &Own) -> Option<Field> {
    let query = json!({
        "version": 1,
        "editor": "builder",
        "builder": {"filters": [{"field": "_seq", "op": "=", "value": VALUE}], "limit": 1},
        "wholeLines": true,
    });
    linked("wholeLine", "whole line", ids, &[internal("Show the whole line", &own.uid, &own.name, query)])
}

fn linked(name: &str, shown: &str, values: StringArray, links: &[Value]) -> Option<Field> {
    let config = Some(json!({"displayNameFromDS": shown, "links": links}));
    (values.null_count() < values.len()).then(|| Field { config, ..Field::new(name, Arc::new(values)) })
}

fn texts(rows: &RecordBatch, name: &str) -> Result<Option<StringArray>, Error> {
    let Some(array) = rows.column_by_name(name).filter(|array| array.null_count() < array.len()) else {
        return Ok(None);
    };
    Ok(Some(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()))
}

fn internal(title: &str, uid: &str, name: &str, query: Value) -> Value {
    json!({
        "title": title,
        "url": "",
        "internal": {"datasourceUid": uid, "datasourceName": name, "query": query},
    })
}

fn trace_links(traces: &Traces, own: Option<&Own>, field: &str) -> Vec<Value> {
    let mut links = Vec::new();
    if !traces.datasource_uid.is_empty() {
        let name = if traces.datasource_name.is_empty() { &traces.datasource_uid } else { &traces.datasource_name };
        // No `queryType`: with one, Grafana asks Jaeger in a language it does not speak.
        links.push(internal("View trace", &traces.datasource_uid, name, json!({"query": VALUE})));
    }
    if !traces.external_url.is_empty() {
        links.push(json!({"title": "Open trace", "url": traces.external_url, "targetBlank": true}));
    }
    if let Some(own) = own {
        let mut query = json!({
            "version": 1,
            "editor": "builder",
            "builder": {"filters": [{"field": field, "op": "=", "value": VALUE}], "direction": "forward"},
            "widen": TRACE_WIDEN,
        });
        if !traces.datasource_uid.is_empty() {
            // By these two, Grafana draws the trace beside the line's details. It asks this data source for it, whose
            // page (trace.ts) hands the question on to the one of the traces.
            query["query"] = json!(VALUE);
            query["queryType"] = json!("traceql");
        }
        links.push(internal("Lines of all services", &own.uid, &own.name, query));
    }
    links
}
