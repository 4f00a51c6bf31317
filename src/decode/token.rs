//! What a scanner finds in a line: names, and where their values stand. No tree: nested names are already joined.

/// How a text value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// A JSON string.
    Json,
    /// Between double quotes, in logfmt or Python's repr.
    Double,
    /// Between single quotes, in Python's repr.
    Single,
    /// Without quotes, up to the next blank.
    Bare,
    /// As it stands; where it ends is the affair of its format ([`super::heads`]).
    Part(Part),
}

/// What a part of a text line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Time,
    Level,
    Message,
    Thread,
    Logger,
    Caller,
    Host,
    App,
    Stream,
    Client,
    User,
    Database,
    Path,
    Other(&'static str),
}

impl Part {
    /// The name of the field that it becomes.
    pub fn name(self) -> &'static str {
        match self {
            Part::Time => "time",
            Part::Level => "level",
            Part::Message => "message",
            Part::Thread => "thread",
            Part::Logger => "logger",
            Part::Caller => "caller",
            Part::Host => "host",
            Part::App => "app_name",
            Part::Stream => "stream",
            Part::Client => "remote_addr",
            Part::User => "user",
            Part::Database => "database",
            Part::Path => "path",
            Part::Other(name) => name,
        }
    }
}

/// A value, typed as far as its spelling tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// A text; `escaped` when it holds a backslash.
    Text { syntax: Syntax, escaped: bool },
    /// An integer, written as it is printed.
    Integer(i64),
    /// A finite float.
    Float(f64),
    /// A boolean; `python` when written with a capital.
    Boolean { value: bool, python: bool },
    /// What is kept as it is written: arrays, empty objects, numbers beyond 64 bits.
    Verbatim,
    /// A text that other values are made of, which stand before it in the list (the request of an access log).
    Echo,
}

/// A value in a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token {
    /// Its name in [`Tokens::names`].
    pub name: (u32, u32),
    /// Where it starts in the line, with its quotes.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
    /// What it is.
    pub value: Value,
}

impl Token {
    /// The part of the line that holds the value without its quotes.
    pub fn inner(&self) -> std::ops::Range<usize> {
        let quoted = |syntax| !matches!(syntax, Syntax::Bare | Syntax::Part(_));
        let quotes = usize::from(matches!(self.value, Value::Text { syntax, .. } if quoted(syntax)));
        self.start as usize + quotes..self.end as usize - quotes
    }
}

/// The values of a line in their order; kept between lines to save allocations.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The values.
    pub list: Vec<Token>,
    /// All names, one after the other.
    pub names: String,
    /// The value that is the record's time whatever others say: the container runtime's.
    pub clock: Option<usize>,
    /// The value that is a syslog priority.
    pub priority: Option<usize>,
}

impl Tokens {
    /// Forgets the line before.
    pub fn clear(&mut self) {
        self.list.clear();
        self.names.clear();
        (self.clock, self.priority) = (None, None);
    }

    /// Forgets the values from the `count`th.
    pub fn truncate(&mut self, count: usize) {
        let names = self.list.get(count).map_or(self.names.len(), |token| token.name.0 as usize);
        self.list.truncate(count);
        self.names.truncate(names);
        self.clock = self.clock.filter(|index| *index < count);
        self.priority = self.priority.filter(|index| *index < count);
    }

    /// Moves the values from the `from`th on by `by` bytes: they were found in a part of the line.
    pub fn shift(&mut self, from: usize, by: isize) {
        for token in &mut self.list[from..] {
            token.start = token.start.wrapping_add_signed(by as i32);
            token.end = token.end.wrapping_add_signed(by as i32);
        }
    }

    /// A value's name.
    pub fn name(&self, token: &Token) -> &str {
        &self.names[token.name.0 as usize..token.name.1 as usize]
    }

    /// Adds a value whose name is what was appended to `names` since `name_start`.
    pub fn push(&mut self, name_start: usize, start: usize, end: usize, value: Value) {
        let name = (name_start as u32, self.names.len() as u32);
        self.list.push(Token { name, start: start as u32, end: end as u32, value });
    }
}

/// What a number is, given text of JSON's number grammar.
pub(super) fn number(text: &str) -> Value {
    let whole = !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    if whole && text != "-0" {
        return text.parse().map_or(Value::Verbatim, Value::Integer);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Value::Float(value),
        _ => Value::Verbatim,
    }
}

/// Length of the JSON number at the start of `bytes`: digits without leading zeros, a fraction, an exponent.
pub(super) fn number_length(bytes: &[u8]) -> Option<usize> {
    let digits = |at: usize| bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    match bytes.get(at)? {
        b'0' => at += 1,
        b'1'..=b'9' => at += digits(at),
        _ => return None,
    }
    if bytes.get(at) == Some(&b'.') {
        let count = digits(at + 1);
        if count == 0 {
            return None;
        }
        at += 1 + count;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let count = digits(at + 1 + sign);
        if count == 0 {
            return None;
        }
        at += 1 + sign + count;
    }
    Some(at)
}
