//! What the query editor asks about the query on the screen: what is wrong with it, what it does, how much it reads,
//! and its other form. Only `check` and `estimate` ask the store. Invariant: nothing here runs the query itself.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use serde_json::{Value, json};

use crate::client::{self, Client, Options};
use crate::error::Error;
use crate::model::{Builder, Editor, Filter, Op, Query, SearchOp};
use crate::query::{Ask, context};
use crate::sql::check::{Hint, Problem};
use crate::sql::{self, Context, check, conversion, editable, explain, layout};

/// Lines whose length stands for all.
const SAMPLE: u64 = 100;
/// A name this alike may be the one that was meant.
const ALIKE: f64 = 0.8;

/// A query as the editor sends it: `{"query", "range": {"from", "to"}, "intervalMs"}`. **Units**: milliseconds.
pub struct Asked {
    query: Query,
    context: Context,
}

impl Asked {
    /// Reads a request's body.
    pub fn read(client: &Client, body: &[u8]) -> Result<Asked, Error> {
        let shape = "the body is not JSON with 'query' and 'range'";
        let body: Value = serde_json::from_slice(body).map_err(|error| Error::Request(format!("{shape}: {error}")))?;
        if !body["query"].is_object() {
            return Err(Error::Request(shape.to_owned()));
        }
        let ms = |value: &Value| value.as_i64().or_else(|| value.as_f64().map(|ms| ms as i64));
        let to_ms = ms(&body["range"]["to"]).unwrap_or_else(|| jiff::Timestamp::now().as_millisecond());
        let ask = Ask {
            ref_id: String::new(),
            from_ms: ms(&body["range"]["from"]).unwrap_or(to_ms - 3_600_000),
            to_ms,
            interval_ms: ms(&body["intervalMs"]).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
            points_max: 0,
            model: body["query"].clone(),
        };
        let query = Query::normalize(&ask.model);
        let context = context(&ask, &query, client)?;
        Ok(Asked { query, context })
    }

    /// The builder as SQL to go on writing: `{"sql"}`.
    pub fn sql(&self) -> Result<Value, Error> {
        Ok(json!({"sql": editable::editable(&self.query, &self.context)?}))
    }

    /// The SQL and the filters beside it as a builder: `{"builder", "format"?}`, or `{"reason"}` when it has no such form.
    pub fn builder(&self) -> Value {
        match conversion::of_query(&self.query) {
            Ok(said) => json!({"builder": said.builder, "format": said.format.unwrap_or(self.query.format)}),
            Err(error) => json!({"reason": error.to_string()}),
        }
    }

    /// The SQL laid out: `{"sql"}`.
    pub fn layout(&self) -> Result<Value, Error> {
        Ok(json!({"sql": layout::layout(&self.query.sql)?}))
    }

    /// What is wrong, what would be better, and what it does. **Shape**: `{"problems": [{"from", "to", "message",
    /// "instead"}], "hints": [{"message", "label"?, "edits"?: [{"from", "to", "text"}], "builder"?}], "explanation":
    /// [text], "readsAllTimes": bool}`; the places count UTF-16 units, as browsers do.
    pub async fn check(&self, client: &Client, options: &Options) -> Result<Value, Error> {
        let options = &self.options(client, options)?;
        let mut answer = json!({
            "problems": [], "hints": [], "readsAllTimes": false,
            "explanation": explain::explain(&self.query, &self.context),
        });
        if self.query.editor == Editor::Builder {
            answer["hints"] = self.builder_hints(client, options).await.into();
            return Ok(answer);
        }
        if self.query.sql.trim().is_empty() {
            return Ok(answer);
        }
        match check::read(&self.query.sql, &self.context) {
            Err(problem) => answer["problems"] = json!([self.place(&problem)]),
            Ok(read) => {
                answer["hints"] = self.hints(read.hints()).into();
                answer["readsAllTimes"] = read.reads_all_times().into();
                // A store that does not answer says so when the query runs; it is no fault of the text.
                if let Err(client::Error::Invalid(words)) = client.plan(read.sql(), options).await {
                    answer["problems"] = json!([self.place(&read.located(&words))]);
                } else if !self.query.filters.is_empty() {
                    let beside = self.beside(client, options).await;
                    if let Some(hints) = answer["hints"].as_array_mut() {
                        hints.extend(beside.into_iter().map(|message| json!({"message": message})));
                    }
                }
            }
        }
        Ok(answer)
    }

    /// What is wrong with the filters beside a text that is fine by itself.
    async fn beside(&self, client: &Client, options: &Options) -> Vec<String> {
        let statement = match sql::statement(&self.query, &self.context) {
            Ok(statement) => statement,
            Err(error) => return vec![error.to_string()],
        };
        let mut found = statement.notices;
        if let Err(client::Error::Invalid(words)) = client.plan(&statement.sql, options).await {
            found.push(format!("with the filters beside the SQL: {}", check::without_place(&words)));
        }
        found
    }

    /// The store is asked as the query itself will ask it.
    fn options(&self, client: &Client, options: &Options) -> Result<Options, Error> {
        Ok(Options { tenant: client.settings().tenant_of(&self.query)?, ..options.clone() })
    }

    fn place(&self, problem: &Problem) -> Value {
        let (from, to) = (self.units(problem.at.start), self.units(problem.at.end));
        json!({"from": from, "to": to, "message": problem.message, "instead": problem.instead})
    }

    fn units(&self, byte: usize) -> usize {
        self.query.sql[..byte.min(self.query.sql.len())].encode_utf16().count()
    }

    fn hints(&self, hints: Vec<Hint>) -> Vec<Value> {
        let edit =
            |(at, text): &check::Edit| json!({"from": self.units(at.start), "to": self.units(at.end), "text": text});
        let hint = |hint: Hint| match hint.fix {
            Some((label, edits)) => {
                json!({"message": hint.message, "label": label, "edits": edits.iter().map(edit).collect::<Vec<_>>()})
            }
            None => json!({"message": hint.message}),
        };
        hints.into_iter().map(hint).collect()
    }

    async fn builder_hints(&self, client: &Client, options: &Options) -> Vec<Value> {
        let builder = &self.query.builder;
        let mut found = plain_patterns(builder);
        // Without the store's fields there is nothing to compare with.
        if let Ok(fields) = crate::resource::field_names(client, options).await {
            found.extend(unknown_fields(builder, &fields));
        }
        found
    }

    /// How much the range holds, for the query's filters on level and service, which the store counts without reading:
    /// `{"lines", "bytes"}`; bytes are those of the lines as received, by the newest of them.
    pub async fn estimate(&self, client: &Client, options: &Options) -> Result<Value, Error> {
        let options = &self.options(client, options)?;
        let counted = ["level", "service"];
        let said = match self.query.editor {
            Editor::Builder => Some(self.query.builder.clone()),
            Editor::Sql => conversion::of_query(&self.query).ok().map(|said| said.builder),
        };
        let narrows = || sql::statement(&self.query, &self.context).is_ok_and(|statement| statement.notices.is_empty());
        let beside = || if narrows() { self.query.filters.clone() } else { Vec::new() };
        let mut filters: Vec<Filter> = said.map_or_else(beside, |builder| builder.filters);
        filters.retain(|filter| counted.contains(&filter.field.trim()) && matches!(filter.op, Op::Eq | Op::In));
        let number = async |sql: String| -> Result<f64, Error> {
            let answer = client.query(&sql, options).await?;
            let first = answer.batches.first().filter(|batch| batch.num_rows() > 0 && batch.num_columns() > 0);
            let Some(batch) = first else { return Ok(0.0) };
            let column = cast(batch.column(0), &DataType::Float64).map_err(crate::frame::Error::from)?;
            let column = column.as_primitive::<Float64Type>();
            Ok(column.iter().next().flatten().unwrap_or(0.0))
        };
        let range = self.context.range;
        let lines = number(sql::count(range, &filters)?).await?;
        let length = if lines > 0.0 { number(sql::line_length(range, &filters, SAMPLE)?).await? } else { 0.0 };
        Ok(json!({"lines": lines as u64, "bytes": (lines * length) as u64}))
    }
}

/// Expressions of a builder that are plain text.
fn plain_patterns(builder: &Builder) -> Vec<Value> {
    let hint = |text: &str, better: Builder| {
        json!({"message": format!("'{text}' is plain text: contains finds the same lines by the index, without an expression"),
               "label": "Use contains", "builder": better})
    };
    let searches = builder.search.iter().enumerate().filter_map(|(at, search)| {
        let op = match search.op {
            SearchOp::Matches => SearchOp::Contains,
            SearchOp::NotMatches => SearchOp::NotContains,
            _ => return None,
        };
        check::is_plain_text(&search.text).then(|| {
            let mut better = builder.clone();
            better.search[at].op = op;
            hint(&search.text, better)
        })
    });
    let filters = builder.filters.iter().enumerate().filter_map(|(at, filter)| {
        let op = match filter.op {
            Op::Matches => Op::Contains,
            Op::NotMatches => Op::NotContains,
            _ => return None,
        };
        check::is_plain_text(&filter.value).then(|| {
            let mut better = builder.clone();
            better.filters[at].op = op;
            hint(&filter.value, better)
        })
    });
    searches.chain(filters).collect()
}

/// Fields that no line has; one that is nearly alike is offered.
fn unknown_fields(builder: &Builder, fields: &[String]) -> Vec<Value> {
    let aggregate = builder.aggregate.as_ref().map(|aggregate| aggregate.field.as_str());
    let filters = builder.filters.iter().map(|filter| filter.field.as_str());
    let mut names: Vec<&str> = filters.chain(aggregate).chain(builder.group_by.iter().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| {
        let is_variable = name.contains('$') || name.contains("[[");
        !name.trim().is_empty()
            && !is_variable
            && !name.starts_with('_')
            && !fields.iter().any(|field| field == name.trim())
    });
    names.into_iter().map(|name| unknown_field(builder, name, fields)).collect()
}

fn unknown_field(builder: &Builder, name: &str, fields: &[String]) -> Value {
    let alike = |field: &&String| strsim::jaro_winkler(&name.to_lowercase(), &field.to_lowercase());
    let near = fields.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))).filter(|field| alike(field) > ALIKE);
    let Some(near) = near else { return json!({"message": format!("no line has a field named '{name}' yet")}) };
    let mut better = builder.clone();
    let rename = |field: &mut String| {
        if field == name {
            field.clone_from(near);
        }
    };
    better.filters.iter_mut().for_each(|filter| rename(&mut filter.field));
    better.group_by.iter_mut().for_each(rename);
    if let Some(aggregate) = &mut better.aggregate {
        rename(&mut aggregate.field);
    }
    json!({"message": format!("no line has a field named '{name}' yet; did you mean '{near}'?"),
           "label": format!("Use {near}"), "builder": better})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_for_a_builder_bring_the_better_builder() {
        let model = json!({"builder": {
            "filters": [{"field": "servce", "op": "=~", "value": "bff"}, {"field": "$f", "op": "=", "value": "x"}],
            "search": [{"op": "!~", "text": "a.b"}, {"op": "!~", "text": "ab"}],
            "groupBy": ["servce"],
        }});
        let builder = Query::normalize(&model).builder;
        let patterns = plain_patterns(&builder);
        assert_eq!(patterns.len(), 2);
        assert_eq!(patterns[0]["builder"]["search"][1]["op"], "!contains");
        assert_eq!(patterns[1]["builder"]["filters"][0]["op"], "contains");
        let unknown = unknown_fields(&builder, &["service".to_owned(), "level".to_owned()]);
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0]["message"], "no line has a field named 'servce' yet; did you mean 'service'?");
        assert_eq!(unknown[0]["builder"]["groupBy"], json!(["service"]));
        let nothing = unknown_fields(&builder, &["x".to_owned()]);
        assert_eq!(nothing[0], json!({"message": "no line has a field named 'servce' yet"}));
    }
}
