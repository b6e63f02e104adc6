//! What a script must look like, checked on its syntax tree before anything of it runs.

use std::collections::{BTreeMap, BTreeSet};

use conexus_plugin_api::{Point, PointKind};
use rhai::{AST, ASTFlags, ASTNode, Expr, FnPtr, ImmutableString, Position, ScriptFuncDef, Stmt};

use super::{engine::LEFT_OUT, fault::ScriptFault, sources::Source};

/// An import at top level.
#[derive(Debug, Clone)]
pub(super) struct Import {
    /// `lib/nets`.
    pub(super) path: ImmutableString,
    /// What the script calls it.
    pub(super) alias: ImmutableString,
    pub(super) position: Position,
}

/// What a first look finds.
#[derive(Debug, Default)]
pub(super) struct Outline {
    pub(super) imports: Vec<Import>,
    /// Top-level constants, and where they are.
    pub(super) constants: BTreeMap<ImmutableString, Position>,
    /// The points that it has functions for.
    pub(super) points: Vec<Point>,
    pub(super) faults: Vec<ScriptFault>,
}

/// Looks at a tree that was parsed without optimization. `known` are constants that the host gives.
pub(super) fn outline(source: &Source, ast: &AST, known: &[&str]) -> Outline {
    let mut outline = Outline::default();
    let fault = |position, text: String| ScriptFault::new(&source.name, position, text);
    for statement in ast.statements() {
        match statement {
            Stmt::Var(parts, flags, position) if flags.intersects(ASTFlags::CONSTANT) => {
                let name = &parts.0.name;
                if known.contains(&name.as_str()) {
                    let text = format!("{name} is there already; choose another name");
                    outline.faults.push(fault(*position, text));
                }
                outline.constants.insert(name.clone(), *position);
            }
            Stmt::Var(parts, _, position) => outline.faults.push(fault(
                *position,
                format!(
                    "let {} at top level: it would be gone when a hook is called. Write const for \
                     what stays the same, and use kv_set() for what changes",
                    parts.0.name
                ),
            )),
            Stmt::Import(parts, position) => match import(&parts.0, &parts.1.name, *position) {
                Ok(import) => outline.imports.push(import),
                Err(text) => outline.faults.push(fault(*position, text)),
            },
            _ => {}
        }
    }
    for function in ast.iter_fn_def() {
        outline.function(source, function);
    }
    outline.points.sort_unstable();
    let constants: BTreeSet<&str> = outline
        .constants
        .keys()
        .map(ImmutableString::as_str)
        .chain(known.iter().copied())
        .collect();
    let found = Names { constants, source, ast }.faults();
    outline.faults.extend(found);
    outline.faults.sort_by_key(|fault| (fault.line, fault.column));
    outline.faults.dedup();
    outline
}

fn import(path: &Expr, alias: &ImmutableString, position: Position) -> Result<Import, String> {
    match path {
        _ if alias.is_empty() => Err("an import needs a name: import \"lib/x\" as x;".to_owned()),
        Expr::StringConstant(path, _) => {
            Ok(Import { path: path.clone(), alias: alias.clone(), position })
        }
        _ => Err("what is imported must be a plain text".to_owned()),
    }
}

impl Outline {
    fn function(&mut self, source: &Source, function: &ScriptFuncDef) {
        let (name, given) = (function.name.as_str(), function.params.len());
        let fault = |text| ScriptFault::new(&source.name, name_position(source, function), text);
        if name.starts_with("test_") && given != 0 {
            self.faults.push(fault(format!("{name} is a test and takes no parameter")));
        }
        if !name.starts_with("on_") {
            return;
        }
        let Some(point) = Point::from_name(name) else {
            return self.faults.push(fault(format!("there is no hook {name}{}", nearest(name))));
        };
        let (wanted, what) = match point.kind() {
            PointKind::Lifecycle => (0, "no parameter"),
            PointKind::Verdict | PointKind::Observer => (1, "one parameter, the event"),
        };
        if given == wanted {
            self.points.push(point);
        } else {
            self.faults.push(fault(format!("{name} takes {what}; this one has {given}")));
        }
    }
}

fn nearest(name: &str) -> String {
    let scored = Point::ALL.iter().map(|p| (strsim::damerau_levenshtein(name, p.name()), p.name()));
    match scored.min() {
        Some((distance, name)) if distance <= 5 => format!("; did you mean {name}?"),
        _ => {
            let names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
            format!("; there are {}", names.join(", "))
        }
    }
}

/// Rhai keeps where a body begins; the name stands before that.
fn name_position(source: &Source, function: &ScriptFuncDef) -> Position {
    let body = function.body.start_position();
    let (Some(line), Some(column)) = (body.line(), body.position()) else { return body };
    let before: String = source
        .text
        .lines()
        .take(line)
        .enumerate()
        .map(|(n, text)| {
            let keep = if n + 1 == line { column.saturating_sub(1) } else { usize::MAX };
            text.chars().take(keep).chain(['\n']).collect::<String>()
        })
        .collect();
    let defined = before.rmatch_indices(function.name.as_str()).find(|(at, _)| {
        let head = &before[..*at];
        head.ends_with(char::is_whitespace) && head.trim_end().ends_with("fn")
    });
    let Some((at, _)) = defined else { return body };
    let line = before[..at].matches('\n').count() + 1;
    let column = before[..at].chars().rev().take_while(|c| *c != '\n').count() + 1;
    match (u16::try_from(line), u16::try_from(column)) {
        (Ok(line), Ok(column)) => Position::new(line, column),
        _ => body,
    }
}

/// Constants are put in place of their names when a script is compiled, wherever the name stands;
/// so nothing else may have the name of one.
struct Names<'a> {
    constants: BTreeSet<&'a str>,
    source: &'a Source,
    ast: &'a AST,
}

impl Names<'_> {
    fn faults(&self) -> Vec<ScriptFault> {
        let mut faults = Vec::new();
        let mut captures: BTreeMap<String, usize> = BTreeMap::new();
        let in_functions = self.ast.clone_functions_only();
        in_functions.walk(&mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Import(_, position))) = path.last() {
                faults.push(self.fault(*position, "import belongs to the top level".to_owned()));
            }
            true
        });
        self.ast.walk(&mut |path| {
            let nested = path.len() > 1;
            match path.last() {
                Some(ASTNode::Stmt(statement)) => self.statement(statement, nested, &mut faults),
                Some(ASTNode::Expr(expression)) => {
                    self.expression(expression, &mut faults, &mut captures);
                }
                _ => {}
            }
            true
        });
        for function in self.ast.iter_fn_def() {
            // What a closure captures comes first among its parameters.
            let captured = captures.get(function.name.as_str()).copied().unwrap_or(0);
            let position = name_position(self.source, function);
            for name in function.params.iter().skip(captured) {
                self.shadows(name, position, &mut faults);
            }
        }
        for function in in_functions.iter_fn_def() {
            for statement in self.body_of(function) {
                if let Stmt::Var(parts, _, position) = statement {
                    self.shadows(&parts.0.name, position, &mut faults);
                }
            }
        }
        faults
    }

    fn body_of(&self, function: &ScriptFuncDef) -> Vec<Stmt> {
        body(self.ast, &function.name, function.params.len())
    }

    fn fault(&self, position: Position, text: String) -> ScriptFault {
        ScriptFault::new(&self.source.name, position, text)
    }

    fn shadows(&self, name: &str, position: Position, faults: &mut Vec<ScriptFault>) {
        if self.constants.contains(name) {
            let text = format!("{name} is the name of a constant; choose another name here");
            faults.push(self.fault(position, text));
        }
    }

    fn statement(&self, statement: &Stmt, nested: bool, faults: &mut Vec<ScriptFault>) {
        match statement {
            Stmt::Var(parts, _, position) if nested => {
                self.shadows(&parts.0.name, *position, faults);
            }
            Stmt::Import(_, position) if nested => {
                faults.push(self.fault(*position, "import belongs to the top level".to_owned()));
            }
            Stmt::For(parts, position) => {
                self.shadows(&parts.0.name, *position, faults);
                if let Some(counter) = &parts.1 {
                    self.shadows(&counter.name, *position, faults);
                }
            }
            Stmt::TryCatch(parts, position) => {
                if let Expr::Variable(variable, ..) = &parts.expr {
                    self.shadows(&variable.1, *position, faults);
                }
            }
            Stmt::Assignment(parts) => {
                if let Some((name, position)) = root(&parts.1.lhs)
                    && self.constants.contains(name)
                {
                    let text = format!("{name} is constant and cannot be changed");
                    faults.push(self.fault(position, text));
                }
            }
            Stmt::FnCall(call, position) => self.called(&call.name, *position, faults),
            _ => {}
        }
    }

    fn expression(
        &self,
        expression: &Expr,
        faults: &mut Vec<ScriptFault>,
        captures: &mut BTreeMap<String, usize>,
    ) {
        let (Expr::FnCall(call, position) | Expr::MethodCall(call, position)) = expression else {
            return;
        };
        if call.name == "curry"
            && let Some(Expr::DynamicConstant(function, _)) = call.args.first()
            && let Some(function) = function.read_lock::<FnPtr>()
        {
            captures.insert(function.fn_name().to_owned(), call.args.len() - 1);
        }
        self.called(&call.name, *position, faults);
    }

    fn called(&self, name: &str, position: Position, faults: &mut Vec<ScriptFault>) {
        // One that a script defines for itself is its own.
        if let Some((_, why)) = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name)
            && self.ast.iter_fn_def().all(|function| function.name != name)
        {
            faults.push(self.fault(position, format!("there is no {name}() here: {why}")));
        }
    }
}

fn root(expression: &Expr) -> Option<(&str, Position)> {
    match expression {
        Expr::Variable(variable, _, position) => Some((variable.1.as_str(), *position)),
        Expr::Dot(parts, ..) | Expr::Index(parts, ..) => root(&parts.lhs),
        _ => None,
    }
}

/// The statements of a function's body.
pub(super) fn body(ast: &AST, name: &str, parameters: usize) -> Vec<Stmt> {
    // Filtering while cloning keeps everything, in this version of Rhai.
    let mut only = ast.clone_functions_only();
    only.retain_functions(|_, _, function, arity| function == name && arity == parameters);
    let mut statements = Vec::new();
    only.walk(&mut |path| {
        if let [ASTNode::Stmt(statement)] = path {
            statements.push((*statement).clone());
        }
        true
    });
    statements
}
