//! `quiver delete`: asks a running store over HTTP to delete records, lists what was asked for, and cancels it.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use super::{Caller, Error};
use crate::server::TENANT;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What `quiver delete` takes.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["filter", "list", "cancel"])))]
pub struct Arguments {
    /// Which records: an SQL condition, such as "user_id = 'u1'"
    pub filter: Option<String>,
    /// Only records from this time on: RFC 3339, digits since the epoch, or a duration ago such as 15m
    #[arg(long, value_name = "TIME", requires = "filter")]
    pub from: Option<String>,
    /// Only records before this time
    #[arg(long, value_name = "TIME", requires = "filter")]
    pub to: Option<String>,
    /// Wait until the records are gone from all segments that can be read
    #[arg(long, requires = "filter")]
    pub wait: bool,
    /// List what was asked for, and how far it is
    #[arg(long)]
    pub list: bool,
    /// Cancel what has not been done of a deletion
    #[arg(long, value_name = "ID")]
    pub cancel: Option<u64>,
    /// The store's HTTP port
    #[arg(long, value_name = "URL", env = "QUIVER_HTTP_URL", default_value = "http://127.0.0.1:3100")]
    pub url: String,
    /// Who asks
    #[command(flatten)]
    pub caller: Caller,
}

/// Does what was asked for; the text is a JSON object per deletion.
pub async fn run(arguments: &Arguments) -> Result<String, Error> {
    let store = Store::new(arguments)?;
    if arguments.list {
        let listed = store.ask(Method::GET, "", None).await?;
        let deletions = listed["deletions"].as_array().cloned().unwrap_or_default();
        return Ok(deletions.iter().map(|deletion| format!("{deletion}\n")).collect());
    }
    if let Some(id) = arguments.cancel {
        return Ok(format!("{}\n", store.ask(Method::DELETE, &format!("/{id}"), None).await?));
    }
    let wanted = json!({ "filter": arguments.filter, "from": arguments.from, "to": arguments.to });
    let mut deletion = store.ask(Method::POST, "", Some(wanted)).await?;
    while arguments.wait && deletion["state"] == "active" {
        tokio::time::sleep(LOOK_EVERY).await;
        let listed = store.ask(Method::GET, "", None).await?;
        let found = listed["deletions"].as_array().into_iter().flatten().find(|found| found["id"] == deletion["id"]);
        deletion = found.cloned().ok_or_else(|| Error::Protocol("the deletion is not listed".to_owned()))?;
    }
    if deletion["state"] == "failed" {
        return Err(Error::Protocol(format!("the deletion failed: {}", deletion["error"].as_str().unwrap_or(""))));
    }
    Ok(format!("{deletion}\n"))
}

/// The store's endpoint, with credentials.
struct Store<'a> {
    client: Client,
    url: String,
    arguments: &'a Arguments,
}

impl Store<'_> {
    fn new(arguments: &Arguments) -> Result<Store<'_>, Error> {
        let client = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).build();
        let client = client.map_err(|error| Error::Flag(super::causes(&error)))?;
        let base = arguments.url.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        Ok(Store { client, url: format!("{base}/api/v1/delete"), arguments })
    }

    async fn ask(&self, method: Method, below: &str, body: Option<Value>) -> Result<Value, Error> {
        let unreachable =
            |error: reqwest::Error| Error::NoHttp { url: self.arguments.url.clone(), cause: super::causes(&error) };
        let mut request = self.client.request(method, format!("{}{below}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = self.with_caller(request).send().await.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        let json: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() && !json.is_null() {
            return Ok(json);
        }
        match json["error"]["message"].as_str() {
            Some(message) => Err(Error::Refused(message.to_owned())),
            None => Err(Error::Protocol(format!("status {status}; is it the HTTP port?"))),
        }
    }

    fn with_caller(&self, mut request: RequestBuilder) -> RequestBuilder {
        let Caller { tenant, token, user } = &self.arguments.caller;
        if let Some(tenant) = tenant {
            request = request.header(TENANT, tenant);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some((name, password)) = user.as_ref().and_then(|user| user.split_once(':')) {
            request = request.basic_auth(name, Some(password));
        }
        request
    }
}
