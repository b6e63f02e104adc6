//! What a hook gives back when its last statement ends with a semicolon.
//!
//! In Rhai the last statement's value is the function's, with a semicolon or without. A hook that
//! ends in `incr("seen");` would so give back a number, which is no verdict. Here such a statement
//! gives nothing back, unless it is a verdict: `deny();` at the end does deny.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use rhai::{AST, Dynamic, Engine, Expr, ParseError, Position, Shared, Span, Stmt, StmtBlock};

use super::bind::{Bindings, VerdictValue};

/// The native that lets nothing but verdicts through. No script can call it by such a name.
const KEEP: &str = "__keep_verdicts";

/// Where blocks end whose last statement has a semicolon.
pub(super) type Terminated = BTreeSet<Position>;

/// Parses, and notes those blocks. (Rhai forgets semicolons.)
pub(super) fn compile(parser: &mut Engine, text: &str) -> (Result<AST, ParseError>, Terminated) {
    let noted: Shared<Mutex<(bool, Terminated)>> = Shared::default();
    let notes = noted.clone();
    #[expect(deprecated, reason = "means volatile here; rhai is pinned to this version")]
    parser.on_parse_token(move |token, position, _state| {
        let mut notes = notes.lock();
        let syntax = if token.is_literal() { token.literal_syntax() } else { "" };
        if syntax == "}" && notes.0 {
            notes.1.insert(position);
        }
        notes.0 = syntax == ";";
        token
    });
    let parsed = parser.compile(text);
    let terminated = std::mem::take(&mut noted.lock().1);
    (parsed, terminated)
}

/// Makes a body's last statement give back what it should.
pub(super) fn settle(engine: &Engine, body: &mut [Stmt], end: Position, terminated: &Terminated) {
    // Whatever Rhai makes of a call is what one looks like.
    let Ok(call) = engine.compile_expression(format!("{KEEP}(0)")) else { return };
    let call = match call.statements() {
        [Stmt::Expr(expression)] => (**expression).clone(),
        [Stmt::FnCall(call, position)] => Expr::FnCall(call.clone(), *position),
        _ => return,
    };
    Tail { call, terminated }.statements(body.last_mut(), end);
}

struct Tail<'a> {
    call: Expr,
    terminated: &'a Terminated,
}

impl Tail<'_> {
    fn statements(&self, last: Option<&mut Stmt>, end: Position) {
        let Some(last) = last else { return };
        if self.terminated.contains(&end) {
            *last = self.kept(last.take());
            return;
        }
        match last {
            Stmt::If(parts, _) | Stmt::TryCatch(parts, _) => {
                self.block(&mut parts.body);
                self.block(&mut parts.branch);
            }
            Stmt::Switch(parts, _) => {
                for case in &mut parts.1.expressions {
                    if let Expr::Stmt(block) = &mut case.rhs {
                        self.block(block);
                    }
                }
            }
            Stmt::Block(block) => self.block(block),
            Stmt::Expr(expression) => {
                if let Expr::Stmt(block) = &mut **expression {
                    self.block(block);
                }
            }
            _ => {}
        }
    }

    fn block(&self, block: &mut StmtBlock) {
        let end = block.span().end();
        self.statements(block.statements_mut().last_mut(), end);
    }

    fn kept(&self, statement: Stmt) -> Stmt {
        let position = statement.position();
        let value = match statement {
            Stmt::Expr(expression) => *expression,
            Stmt::FnCall(call, position) => Expr::FnCall(call, position),
            nested @ (Stmt::If(..) | Stmt::Switch(..) | Stmt::Block(..) | Stmt::TryCatch(..)) => {
                let span = Span::new(position, position);
                Expr::Stmt(StmtBlock::new_with_span([nested], span).into())
            }
            without_value => return without_value,
        };
        let mut call = self.call.clone();
        if let Expr::FnCall(call, place) = &mut call {
            *place = position;
            if let Some(argument) = call.args.first_mut() {
                *argument = value;
            }
        }
        Stmt::Expr(call.into())
    }
}

/// Registers the native.
pub(super) fn bind(bindings: &mut Bindings) {
    bindings.function(KEEP, |value: Dynamic| {
        let is_verdict = |value: &Dynamic| value.read_lock::<VerdictValue>().is_some();
        let some = |array: &rhai::Array| array.iter().any(is_verdict);
        let keep =
            is_verdict(&value) || value.read_lock::<rhai::Array>().is_some_and(|it| some(&it));
        if keep { value } else { Dynamic::UNIT }
    });
}
