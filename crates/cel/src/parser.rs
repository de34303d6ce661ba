//! From tokens to a tree: recursive descent, with macros expanded on the way.

mod macros;

use std::sync::Arc;

use crate::ast::{Ast, Comprehension, Const, Entry, Expr, Kind, op};
use crate::error::Issue;
use crate::lexer::{Lexeme, Token, lex};

/// Deeper expressions are refused. Upstream: `parser.MaxRecursionDepth`.
const MAX_DEPTH: usize = 250;
/// In characters. Upstream: `parser.ExpressionSizeCodePointLimit`.
const MAX_SIZE: usize = 100_000;

pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
/// What ANTLR lists where an operand should be.
const OPERAND: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// `binds`: whether `cel.bind` is known.
pub(crate) fn parse(source: &str, binds: bool) -> Result<Ast, Vec<Issue>> {
    let size = source.chars().count();
    if size > MAX_SIZE {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {MAX_SIZE}");
        return Err(vec![Issue { at: 0, message }]);
    }
    let (tokens, issues) = lex(source);
    let mut parser = Parser { tokens, next: 0, offsets: Vec::new(), issues, depth: 0, copied: 0, binds };
    let root = parser.expr();
    if let Ok(root) = &root {
        let end = parser.peek().clone();
        if end.token != Token::End {
            parser.unexpected_tail(&end);
        }
        if parser.issues.is_empty() {
            return Ok(Ast { root: root.clone(), offsets: parser.offsets });
        }
    }
    Err(parser.issues)
}

/// An issue was noted and parsing ends.
struct Stop;
type Parsed<T = Expr> = Result<T, Stop>;

struct Parser {
    tokens: Vec<Lexeme>,
    next: usize,
    offsets: Vec<u32>,
    issues: Vec<Issue>,
    depth: usize,
    /// Nodes that macros have repeated.
    copied: usize,
    binds: bool,
}

impl Parser {
    fn peek(&self) -> &Lexeme {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn at_sign(&self, sign: &str) -> bool {
        matches!(self.peek().token, Token::Sign(found) if found == sign)
    }

    fn take(&mut self) -> Lexeme {
        let lexeme = self.peek().clone();
        self.next += 1;
        lexeme
    }

    /// Takes this sign if it is next, and tells its place.
    fn eat(&mut self, sign: &str) -> Option<u32> {
        self.at_sign(sign).then(|| self.take().at)
    }

    fn node(&mut self, at: u32, kind: Kind) -> Expr {
        self.offsets.push(at);
        Expr { id: self.offsets.len() as u32 - 1, kind }
    }

    fn call(&mut self, at: u32, function: &str, args: Vec<Expr>) -> Expr {
        self.node(at, Kind::Call { function: function.into(), target: None, args })
    }

    fn issue<T>(&mut self, at: u32, message: impl Into<String>) -> Parsed<T> {
        self.issues.push(Issue { at, message: message.into() });
        Err(Stop)
    }

    fn mismatched<T>(&mut self, expecting: &str) -> Parsed<T> {
        let found = self.peek().clone();
        self.issue(found.at, format!("Syntax error: mismatched input '{}' expecting {expecting}", found.text))
    }

    fn unexpected_tail(&mut self, found: &Lexeme) {
        let what = match &found.token {
            Token::Literal(_) | Token::Ident(_) | Token::Sign("true" | "false" | "null" | "!") => "extraneous",
            _ => "mismatched",
        };
        let all = "{<EOF>, '==', '!=', 'in', '<', '<=', '>=', '>', '&&', '||', '[', '.', '-', '?', '+', '*', '/', '%'}";
        let text = if what == "extraneous" {
            format!("'{}' expecting <EOF>", found.text)
        } else {
            format!("'{}' expecting {all}", found.text)
        };
        self.issues.push(Issue { at: found.at, message: format!("Syntax error: {what} input {text}") });
    }

    fn expect(&mut self, sign: &str) -> Parsed<u32> {
        match self.eat(sign) {
            Some(at) => Ok(at),
            None if self.peek().token == Token::End && sign != ":" => {
                self.issue(self.peek().at, format!("Syntax error: missing '{sign}' at '<EOF>'"))
            }
            None => self.mismatched(&format!("'{sign}'")),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return self.issue(0, format!("expression recursion limit exceeded: {MAX_DEPTH}"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn expr(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.or()?;
            let Some(at) = parser.eat("?") else { return Ok(condition) };
            let then = parser.or()?;
            parser.expect(":")?;
            let otherwise = parser.expr()?;
            Ok(parser.call(at, op::CONDITIONAL, vec![condition, then, otherwise]))
        })
    }

    fn or(&mut self) -> Parsed {
        self.logical("||", op::OR, Self::and)
    }

    fn and(&mut self) -> Parsed {
        self.logical("&&", op::AND, Self::relation)
    }

    /// A chain of one logical operator, as a balanced tree.
    fn logical(&mut self, sign: &str, function: &str, operand: fn(&mut Self) -> Parsed) -> Parsed {
        let mut terms = vec![Some(operand(self)?)];
        let mut places = Vec::new();
        while let Some(at) = self.eat(sign) {
            places.push(at);
            terms.push(Some(operand(self)?));
        }
        if places.is_empty() {
            return terms.pop().flatten().ok_or(Stop);
        }
        self.balanced(function, &mut terms, &places, 0, places.len() - 1)
    }

    fn balanced(
        &mut self,
        function: &str,
        terms: &mut [Option<Expr>],
        places: &[u32],
        low: usize,
        high: usize,
    ) -> Parsed {
        let mid = (low + high).div_ceil(2);
        let left = if mid == low {
            terms[mid].take().ok_or(Stop)?
        } else {
            self.balanced(function, terms, places, low, mid - 1)?
        };
        let right = if mid == high {
            terms[mid + 1].take().ok_or(Stop)?
        } else {
            self.balanced(function, terms, places, mid + 1, high)?
        };
        Ok(self.call(places[mid], function, vec![left, right]))
    }

    fn binary(&mut self, operators: &[(&str, &str)], operand: fn(&mut Self) -> Parsed) -> Parsed {
        let mut left = operand(self)?;
        let mut links = 0;
        'chain: loop {
            for (sign, function) in operators {
                if let Some(at) = self.eat(sign) {
                    let right = operand(self)?;
                    left = self.call(at, function, vec![left, right]);
                    links += 1;
                    self.chained(links)?;
                    continue 'chain;
                }
            }
            return Ok(left);
        }
    }

    /// A long chain is a deep tree.
    fn chained(&mut self, links: usize) -> Parsed<()> {
        if self.depth + links > 2 * MAX_DEPTH {
            return self.issue(0, format!("expression recursion limit exceeded: {MAX_DEPTH}"));
        }
        Ok(())
    }

    fn relation(&mut self) -> Parsed {
        const OPERATORS: [(&str, &str); 7] = [
            ("==", op::EQUALS),
            ("!=", "_!=_"),
            ("<=", "_<=_"),
            (">=", "_>=_"),
            ("<", "_<_"),
            (">", "_>_"),
            ("in", op::IN),
        ];
        self.binary(&OPERATORS, Self::sum)
    }

    fn sum(&mut self) -> Parsed {
        self.binary(&[("+", op::ADD), ("-", "_-_")], Self::product)
    }

    fn product(&mut self) -> Parsed {
        self.binary(&[("*", "_*_"), ("/", "_/_"), ("%", "_%_")], Self::unary)
    }

    fn unary(&mut self) -> Parsed {
        for (sign, function) in [("!", op::NOT), ("-", op::NEGATE)] {
            if !self.at_sign(sign) {
                continue;
            }
            let number = matches!(
                self.tokens.get(self.next + 1).map(|lexeme| &lexeme.token),
                Some(Token::Literal(Const::Int(_) | Const::Double(_)))
            );
            if sign == "-" && number {
                break;
            }
            let at = self.take().at;
            let mut count = 1;
            while self.eat(sign).is_some() {
                count += 1;
            }
            let operand = self.member()?;
            return Ok(if count % 2 == 0 { operand } else { self.call(at, function, vec![operand]) });
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let mut operand = self.primary()?;
        let mut links = 0;
        loop {
            links += 1;
            self.chained(links)?;
            if let Some(at) = self.eat(".") {
                let optional = self.eat("?").is_some();
                let Token::Ident(name) = self.peek().token.clone() else {
                    // Words of the language may be fields.
                    if let (Token::Sign(word @ ("in" | "true" | "false" | "null")), false) =
                        (&self.peek().token, optional)
                    {
                        let word = *word;
                        let found = self.peek().clone();
                        return self.issue(found.at, format!("Syntax error: no viable alternative at input '.{word}'"));
                    }
                    let found = self.peek().clone();
                    return self.issue(
                        found.at,
                        format!("Syntax error: mismatched input '{}' expecting IDENTIFIER", found.text),
                    );
                };
                self.take();
                operand = if optional {
                    let field = self.node(at, Kind::Const(Const::String(name)));
                    self.call(at, op::OPT_SELECT, vec![operand, field])
                } else if let Some(open) = self.eat("(") {
                    let args = self.arguments(")")?;
                    self.member_call(open, &name, operand, args)?
                } else {
                    self.node(at, Kind::Select { operand: Box::new(operand), field: name, test: false })
                };
            } else if let Some(at) = self.eat("[") {
                let optional = self.eat("?").is_some();
                let index = self.expr()?;
                self.expect("]")?;
                operand = self.call(at, if optional { op::OPT_INDEX } else { op::INDEX }, vec![operand, index]);
            } else if self.at_sign("{") && type_name(&operand).is_some() {
                let name = type_name(&operand).unwrap_or_default();
                let at = self.take().at;
                let fields = self.fields()?;
                operand = self.node(at, Kind::Struct { name: name.into(), fields });
            } else {
                return Ok(operand);
            }
        }
    }

    fn fields(&mut self) -> Parsed<Vec<(u32, Arc<str>, Expr)>> {
        let mut fields = Vec::new();
        while !self.at_sign("}") {
            self.eat("?");
            let Token::Ident(name) = self.peek().token.clone() else {
                return self.mismatched("{'}', ',', '?', IDENTIFIER}");
            };
            self.take();
            let at = self.expect(":")?;
            let value = self.expr()?;
            let id = self.node(at, Kind::Const(Const::Null)).id;
            fields.push((id, name, value));
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(fields)
    }

    fn arguments(&mut self, close: &str) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(close).is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect(close)?;
        Ok(args)
    }

    fn primary(&mut self) -> Parsed {
        let lexeme = self.peek().clone();
        let at = lexeme.at;
        match lexeme.token {
            Token::Ident(name) => {
                self.take();
                self.named(at, name)
            }
            Token::Sign(".") => {
                self.take();
                let Token::Ident(name) = self.peek().token.clone() else { return self.mismatched("IDENTIFIER") };
                let at = self.take().at;
                self.named(at, format!(".{name}").into())
            }
            Token::Literal(constant) => {
                self.take();
                Ok(self.node(at, Kind::Const(constant)))
            }
            Token::Sign("-") => {
                self.take();
                let constant = match self.take().token {
                    Token::Literal(Const::Int(n)) => Const::Int(n.wrapping_neg()),
                    Token::Literal(Const::Double(f)) => Const::Double(-f),
                    _ => return self.issue(at, format!("Syntax error: mismatched input '-' expecting {OPERAND}")),
                };
                Ok(self.node(at, Kind::Const(constant)))
            }
            Token::Sign(word @ ("true" | "false" | "null")) => {
                self.take();
                let constant = if word == "null" { Const::Null } else { Const::Bool(word == "true") };
                Ok(self.node(at, Kind::Const(constant)))
            }
            Token::Sign("(") => {
                self.take();
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.take();
                self.list(at)
            }
            Token::Sign("{") => {
                self.take();
                self.map(at)
            }
            Token::Sign(_) | Token::End => self.mismatched(OPERAND),
        }
    }

    /// What a name begins: a call, or an identifier.
    fn named(&mut self, at: u32, name: Arc<str>) -> Parsed {
        if RESERVED.contains(&name.as_ref()) && !self.at_sign("(") {
            self.issues.push(Issue { at, message: format!("reserved identifier: {name}") });
        }
        if let Some(open) = self.eat("(") {
            let args = self.arguments(")")?;
            return self.global_call(open, &name, args);
        }
        Ok(self.node(at, Kind::Ident(name)))
    }

    fn list(&mut self, at: u32) -> Parsed {
        let (mut elements, mut optional) = (Vec::new(), Vec::new());
        while !self.at_sign("]") {
            if self.eat("?").is_some() {
                optional.push(elements.len());
            }
            elements.push(self.expr()?);
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("]")?;
        Ok(self.node(at, Kind::List { elements, optional }))
    }

    fn map(&mut self, at: u32) -> Parsed {
        let mut entries = Vec::new();
        while !self.at_sign("}") {
            let optional = self.eat("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(self.node(at, Kind::Map { entries }))
    }

    fn fold(&mut self, at: u32, fold: Comprehension) -> Expr {
        self.node(at, Kind::Comprehension(Box::new(fold)))
    }
}

/// The dotted name that an expression of names and selections spells.
pub(crate) fn type_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", type_name(operand)?)),
        _ => None,
    }
}
