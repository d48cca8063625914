//! Calls by values whose lists of bytes stay in one piece.
//!
//! [`Val`] has a value of 32 bytes for each byte of a list, so a list of a kilobyte costs thirty times what it costs by
//! Rust's types. Here it is a `Vec<u8>`, and functions of the usual shapes are called by Rust's types that were found
//! when the plugin was loaded: those that take up to two of `list<u8>` and `string`, and give nothing, one of these, or a
//! `result` of them. Others are called by [`Val`]s, with the same answer.

use wasmtime::Store;
use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Func, Instance, Lift, Lower, Type, Val};

use super::Error;
use super::call::{Plugin, Work, function};
use super::entry::Entry;
use super::options::CallOptions;
use crate::wasm::p2::{State, driver};

/// An argument or an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A `list<u8>`.
    Bytes(Vec<u8>),
    /// Anything else. Lists of bytes inside of it are lists of values.
    Val(Val),
}

impl From<Val> for Value {
    fn from(value: Val) -> Self {
        Self::Val(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Val(Val::String(text.to_owned()))
    }
}

/// What a parameter is, in functions that are called by Rust's types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Bytes,
    Text,
}

/// What such a function gives. Of a `result`, what it gives when it is well, and what otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    Nothing,
    Bytes,
    Text,
    NothingOrText,
    BytesOrText,
    BytesOrBytes,
    TextOrText,
}

/// A function that takes and gives nothing but bytes and texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    takes: Vec<Piece>,
    gives: Gives,
}

impl Shape {
    /// The shape of a function, if it has one.
    pub(super) fn of(ty: &ComponentFunc) -> Option<Self> {
        let takes: Vec<_> = ty.params().map(|(_, ty)| piece(&ty)).collect::<Option<_>>()?;
        let gives = match (ty.results().next(), ty.results().len()) {
            (None, _) => Gives::Nothing,
            (Some(Type::Result(result)), 1) => {
                match (result.ok().map(|ty| piece(&ty)), result.err().map(|ty| piece(&ty))) {
                    (None, Some(Some(Piece::Text))) => Gives::NothingOrText,
                    (Some(Some(Piece::Bytes)), Some(Some(Piece::Text))) => Gives::BytesOrText,
                    (Some(Some(Piece::Bytes)), Some(Some(Piece::Bytes))) => Gives::BytesOrBytes,
                    (Some(Some(Piece::Text)), Some(Some(Piece::Text))) => Gives::TextOrText,
                    _ => return None,
                }
            }
            (Some(ty), 1) => match piece(&ty)? {
                Piece::Bytes => Gives::Bytes,
                Piece::Text => Gives::Text,
            },
            _ => return None,
        };
        (takes.len() <= 2).then_some(Self { takes, gives })
    }

    /// Arguments as this function takes them, if they are.
    fn given<'a>(&self, args: &'a [Value]) -> Option<Vec<Given<'a>>> {
        let given = |(piece, value): (&Piece, &'a Value)| match (piece, value) {
            (Piece::Bytes, Value::Bytes(bytes)) => Some(Given::Bytes(bytes)),
            (Piece::Text, Value::Val(Val::String(text))) => Some(Given::Text(text)),
            _ => None,
        };
        (self.takes.len() == args.len()).then(|| self.takes.iter().zip(args).map(given).collect())?
    }
}

fn piece(ty: &Type) -> Option<Piece> {
    match ty {
        Type::String => Some(Piece::Text),
        Type::List(list) if matches!(list.ty(), Type::U8) => Some(Piece::Bytes),
        _ => None,
    }
}

/// A call of a function with a shape.
struct Shaped<'a> {
    name: &'a str,
    index: ComponentExportIndex,
    takes: Vec<Given<'a>>,
    gives: Gives,
}

#[derive(Debug, Clone, Copy)]
enum Given<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
}

/// How it ended: well or not, and with what.
type Ended = Result<Option<Value>, Val>;

impl Work for Shaped<'_> {
    type Answer = Ended;

    fn name(&self) -> &str {
        self.name
    }

    fn direct(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Ended> {
        // It waits for nothing.
        driver::block_on(self.call(store, instance, false), false)?
    }

    async fn waiting(self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Ended> {
        self.call(store, instance, true).await
    }
}

impl Shaped<'_> {
    async fn call(
        self,
        store: &mut Store<State>,
        instance: &Instance,
        waits: bool,
    ) -> wasmtime::Result<Ended> {
        use Given::{Bytes, Text};
        let to = To { func: function(store, instance, &self.index)?, gives: self.gives, waits };
        match *self.takes.as_slice() {
            [] => to.with(store, ()).await,
            [Bytes(a)] => to.with(store, (a,)).await,
            [Text(a)] => to.with(store, (a,)).await,
            [Bytes(a), Bytes(b)] => to.with(store, (a, b)).await,
            [Bytes(a), Text(b)] => to.with(store, (a, b)).await,
            [Text(a), Bytes(b)] => to.with(store, (a, b)).await,
            [Text(a), Text(b)] => to.with(store, (a, b)).await,
            _ => Err(wasmtime::format_err!("too many arguments")),
        }
    }
}

/// The function of one instance.
struct To {
    func: Func,
    gives: Gives,
    waits: bool,
}

impl To {
    async fn with<P: ComponentNamedList + Lower>(
        &self,
        store: &mut Store<State>,
        params: P,
    ) -> wasmtime::Result<Ended> {
        let text = |text| Value::Val(Val::String(text));
        Ok(match self.gives {
            Gives::Nothing => {
                self.get::<P, ()>(store, params).await?;
                Ok(None)
            }
            Gives::Bytes => Ok(Some(Value::Bytes(self.get::<P, (Vec<u8>,)>(store, params).await?.0))),
            Gives::Text => Ok(Some(text(self.get::<P, (String,)>(store, params).await?.0))),
            Gives::NothingOrText => {
                let (answer,) = self.get::<P, (Result<(), String>,)>(store, params).await?;
                answer.map(|()| None).map_err(Val::String)
            }
            Gives::BytesOrText => {
                let (answer,) = self.get::<P, (Result<Vec<u8>, String>,)>(store, params).await?;
                answer.map(|bytes| Some(Value::Bytes(bytes))).map_err(Val::String)
            }
            Gives::BytesOrBytes => {
                let (answer,) = self.get::<P, (Result<Vec<u8>, Vec<u8>>,)>(store, params).await?;
                answer.map(|bytes| Some(Value::Bytes(bytes))).map_err(list)
            }
            Gives::TextOrText => {
                let (answer,) = self.get::<P, (Result<String, String>,)>(store, params).await?;
                answer.map(|answer| Some(text(answer))).map_err(Val::String)
            }
        })
    }

    async fn get<P, R>(&self, store: &mut Store<State>, params: P) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let typed = self.func.typed::<P, R>(&*store)?;
        if self.waits { typed.call_async(store, params).await } else { typed.call(store, params) }
    }
}

fn list(bytes: Vec<u8>) -> Val {
    Val::List(bytes.into_iter().map(Val::U8).collect())
}

impl Value {
    fn into_val(self) -> Val {
        match self {
            Self::Bytes(bytes) => list(bytes),
            Self::Val(value) => value,
        }
    }

    /// A list of bytes in one piece, whatever it came as.
    fn gathered(value: Val) -> Self {
        let Val::List(items) = &value else { return Self::Val(value) };
        let byte = |item: &Val| if let Val::U8(byte) = item { Some(*byte) } else { None };
        match items.iter().map(byte).collect() {
            // A list without elements may be one of anything: the caller says what it is.
            Some(bytes) if !items.is_empty() => Self::Bytes(bytes),
            _ => Self::Val(value),
        }
    }
}

impl Plugin {
    /// As [`Plugin::call_with`], with lists of bytes in one piece: arguments, the answer, and what is `ok` in an answer. This
    /// costs hardly more than a call by Rust's types where a function takes and gives bytes and texts.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub fn call_values(
        &self,
        options: &CallOptions,
        name: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let version = self.current();
        let entry = self.entry(&version, name)?;
        match entry.shaped(args) {
            Some(work) => self.blocking(&version, options, work, ended),
            None => Ok(entry.gathered(self.call_with(options, name, &vals(args))?)),
        }
    }

    /// As [`Plugin::call_values`], without blocking.
    ///
    /// # Errors
    /// As [`Plugin::call`].
    pub async fn call_values_async(
        &self,
        options: &CallOptions,
        name: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, Error> {
        let version = self.current();
        let entry = self.entry(&version, name)?;
        match entry.shaped(args) {
            Some(work) => self.waiting(&version, options, work, true, ended).await,
            None => Ok(entry.gathered(self.call_async(options, name, &vals(args)).await?)),
        }
    }
}

impl Entry {
    fn shaped<'a>(&'a self, args: &'a [Value]) -> Option<Shaped<'a>> {
        let shape = self.shape.as_ref()?;
        Some(Shaped { name: &self.name, index: self.index, takes: shape.given(args)?, gives: shape.gives })
    }

    /// The answer, with lists of bytes in one piece.
    fn gathered(&self, values: Vec<Val>) -> Vec<Value> {
        let result = self.ty.results().next();
        let of = match result {
            Some(Type::Result(result)) => result.ok(),
            other => other,
        };
        let is_bytes = of.is_some_and(|ty| piece(&ty) == Some(Piece::Bytes));
        values
            .into_iter()
            .map(|value| match value {
                Val::List(items) if is_bytes && items.is_empty() => Value::Bytes(Vec::new()),
                value if is_bytes => Value::gathered(value),
                value => Value::Val(value),
            })
            .collect()
    }
}

fn vals(args: &[Value]) -> Vec<Val> {
    args.iter().cloned().map(Value::into_val).collect()
}

fn ended(ended: Ended) -> Result<Vec<Value>, Error> {
    ended.map(|value| value.into_iter().collect()).map_err(|value| Error::Guest(Some(Box::new(value))))
}
