//! Just enough Rust to tell code from comments and literals, and to find the paths that code names.
//!
//! It is no parser: macros are read as they stand, and a name is a path wherever it occurs.

/// A file's code, with comments and literals blanked out, and its string literals.
#[derive(Debug, Default)]
pub struct Source {
    /// The code; line breaks stay where they are, so that lines can be counted.
    pub code: String,
    /// Each string literal with its line, from 1.
    pub strings: Vec<(usize, String)>,
}

impl Source {
    /// Tells code, comments and literals apart.
    pub fn read(text: &str) -> Self {
        let mut reader = Reader { rest: text, source: Self::default(), line: 1 };
        while !reader.rest.is_empty() {
            reader.step();
        }
        reader.source
    }

    /// The paths that the code names, with their line; a group (`a::{b, c::d}`) gives each of its
    /// paths in full. A single identifier is a path of one segment.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut paths = Vec::new();
        let mut tokens = tokens(&self.code).peekable();
        // For each open brace the path in front of it; empty unless it opens a group.
        let mut open: Vec<Vec<String>> = Vec::new();
        let mut path: Vec<String> = Vec::new();
        let mut after_separator = false;
        while let Some((line, token)) = tokens.next() {
            let group = open.last().cloned().unwrap_or_default();
            match token {
                Token::Name(name) => {
                    if !after_separator {
                        path = group;
                    }
                    path.push(name.to_owned());
                    after_separator = false;
                    if !matches!(tokens.peek(), Some((_, Token::Separator))) {
                        paths.push((line, path.clone()));
                    }
                    continue;
                }
                Token::Separator => {
                    after_separator = true;
                    continue;
                }
                Token::Open if after_separator => {
                    paths.push((line, path.clone()));
                    open.push(path.clone());
                }
                Token::Open => open.push(Vec::new()),
                Token::Close => drop(open.pop()),
                Token::Other if after_separator => paths.push((line, path.clone())),
                Token::Other => {}
            }
            path.clear();
            after_separator = false;
        }
        paths
    }
}

enum Token<'a> {
    Name(&'a str),
    Separator,
    Open,
    Close,
    Other,
}

fn tokens(code: &str) -> impl Iterator<Item = (usize, Token<'_>)> {
    code.lines().enumerate().flat_map(|(index, mut rest)| {
        let mut tokens = Vec::new();
        let mut after_name = false;
        while let Some(first) = rest.chars().next() {
            let length = if is_name(first) {
                rest.find(|c| !is_name(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                "::".len()
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            rest = after;
            let was_name = is_name(first);
            let token = match token {
                // Behind anything but a name it opens a path (`use ::a`) or follows a type (`<T>::a`).
                "::" if after_name => Token::Separator,
                "{" => Token::Open,
                "}" => Token::Close,
                name if was_name => Token::Name(name),
                _ if first.is_whitespace() => {
                    after_name = false;
                    continue;
                }
                _ => Token::Other,
            };
            after_name = was_name;
            tokens.push((index + 1, token));
        }
        tokens
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Reader<'a> {
    rest: &'a str,
    source: Source,
    line: usize,
}

impl Reader<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        if rest.starts_with("//") {
            self.blank(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.blank(comment_length(rest));
        } else if let Some(inner) = rest.strip_prefix('"') {
            let end = plain_end(inner, '"');
            self.string(1, end, 1);
        } else if let Some(length) = char_literal_length(rest) {
            self.blank(length);
        } else if let Some((open, length, close)) = raw_string(rest) {
            self.string(open, length, close);
        } else if let Some(first) = rest.chars().next() {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            self.keep(end.max(first.len_utf8()));
        }
    }

    fn keep(&mut self, bytes: usize) {
        let (kept, rest) = self.rest.split_at(bytes);
        self.line += kept.matches('\n').count();
        self.source.code.push_str(kept);
        self.rest = rest;
    }

    fn blank(&mut self, bytes: usize) {
        let (blanked, rest) = self.rest.split_at(bytes);
        let breaks = blanked.matches('\n').count();
        self.line += breaks;
        self.source.code.push(' ');
        self.source.code.extend(std::iter::repeat_n('\n', breaks));
        self.rest = rest;
    }

    fn string(&mut self, open: usize, length: usize, close: usize) {
        let text = &self.rest[open..open + length];
        self.source.strings.push((self.line, text.to_owned()));
        self.blank((open + length + close).min(self.rest.len()));
    }
}

/// The length of a block comment; they nest.
fn comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Where a literal with escapes ends, from behind its opening quote.
fn plain_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if !escaped && c == quote {
            return at;
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

/// The length of a character literal; nothing where the quote begins a lifetime or a label.
fn char_literal_length(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let closed = inner[first.len_utf8()..].starts_with('\'');
    (first == '\\' || closed).then(|| 1 + plain_end(inner, '\'') + 1).map(|end| end.min(text.len()))
}

/// The lengths of a raw string's opening, text and closing.
fn raw_string(text: &str) -> Option<(usize, usize, usize)> {
    let marked = ["r", "br", "cr"].iter().find_map(|mark| text.strip_prefix(mark))?;
    let inner = marked.trim_start_matches('#');
    let hashes = marked.len() - inner.len();
    let inner = inner.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let length = inner.find(&close).unwrap_or(inner.len());
    Some((text.len() - inner.len(), length, close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let source = Source::read(concat!(
            "// unsafe\n",
            "/* unsafe /* unsafe */ unsafe */ let a = \"unsafe \\\" unsafe\";\n",
            "let b = r#\"unsafe \" unsafe\"#; let c = '\"'; let d = '\\''; let e: &'static str;\n",
            "let f = br\"unsafe\"; fn g<'a>(r#type: &'a str) {}\n",
        ));
        assert!(!source.code.contains("unsafe"), "{}", source.code);
        for kept in ["let a", "let b", "let c", "let d", "&'static str", "r#type", "let f"] {
            assert!(source.code.contains(kept), "{kept}: {}", source.code);
        }
        assert_eq!(source.code.lines().count(), 4);
        let strings: Vec<(usize, &str)> =
            source.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(strings, [(2, "unsafe \\\" unsafe"), (3, "unsafe \" unsafe"), (4, "unsafe")]);
    }

    #[test]
    fn a_file_that_ends_inside_a_literal_is_read_to_its_end() {
        for text in ["\"open", "r#\"open", "/* open", "'\\", "let a = 'é'; \"ü\\"] {
            Source::read(text);
        }
    }

    #[test]
    fn paths_are_found_in_imports_and_in_expressions() {
        let text = "use a::{b, c::{self as x, D}, *};\nfn f() { e::g(h, i::J {}); }\nuse ::k::l;\n";
        let found: Vec<String> = Source::read(text)
            .paths()
            .into_iter()
            .map(|(line, path)| format!("{line} {}", path.join("::")))
            .collect();
        for expected in
            ["1 a::b", "1 a::c::self", "1 a::c::D", "1 a", "2 e::g", "2 h", "2 i::J", "3 k::l"]
        {
            assert!(found.iter().any(|path| path == expected), "{expected}: {found:?}");
        }
        assert!(!found.iter().any(|path| path == "2 a::h"), "{found:?}");
    }
}
