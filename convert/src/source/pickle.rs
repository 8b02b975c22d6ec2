//! A reader of pickles that executes nothing.
//!
//! A pickle is a program for a stack machine, and may import and call anything. This machine knows only the few
//! callables that `torch.save` uses for a dictionary of tensors, and builds descriptions of tensors instead of
//! calling them. Any other import is an error that names it. No crate for pickles refuses to run one, so the
//! machine is our own.
//!
//! Objects live in one arena and refer to each other by index, so that neither cycles nor deep nesting exhaust the
//! call stack. Strings borrow from the file. Every other object counts against [`MAX_OBJECTS`].

use super::dtype::DType;
use super::tensors::MAX_RANK;

/// Limit for the tuples, lists, dictionaries and tensors of a pickle. A training checkpoint of BERT-large has
/// about ten thousand.
const MAX_OBJECTS: usize = 1 << 20;
/// Limit for the values on the stack and in containers.
const MAX_VALUES: usize = 1 << 22;
/// Limit for open marks, that is, for the nesting of containers while they are built.
const MAX_MARKS: usize = 1000;
/// Limit for the bytes of an integer. The magic number of the legacy format has ten.
const MAX_LONG: usize = 64;

/// A value on the stack, in a container or in the memo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A longer integer: its little-endian bytes.
    Long(&'a [u8]),
    /// A floating-point number. No tensor depends on it.
    Float,
    /// A string.
    Str(&'a str),
    /// Bytes. No tensor depends on them.
    Bytes,
    /// An allowed import.
    Global(Global),
    /// Index of an object in the arena.
    Object(usize),
}

/// Everything that a pickle may import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch.Size`.
    Size,
    /// `torch.device`.
    Device,
    /// `torch._utils._rebuild_tensor`.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensorV2,
    /// `torch._utils._rebuild_parameter` and `_rebuild_parameter_with_state`.
    RebuildParameter,
    /// `torch.FloatStorage` and the like: the index of the type in [`STORAGES`].
    Storage(usize),
    /// `torch.float32` and the like.
    DType,
}

/// The storage classes and their types.
const STORAGES: &[(&str, DType)] = &[
    ("DoubleStorage", DType::F64),
    ("FloatStorage", DType::F32),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::BF16),
    ("LongStorage", DType::I64),
    ("IntStorage", DType::I32),
    ("ShortStorage", DType::I16),
    ("CharStorage", DType::I8),
    ("ByteStorage", DType::U8),
    ("BoolStorage", DType::Bool),
];

/// `torch.dtype` constants, which are only metadata.
const DTYPES: &[&str] = &[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
];

fn global(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Device,
        ("torch._utils", "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensorV2,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Global::RebuildParameter
        }
        ("torch", name) if DTYPES.contains(&name) => Global::DType,
        ("torch", name) => Global::Storage(STORAGES.iter().position(|(n, _)| *n == name)?),
        _ => return None,
    })
}

/// A storage as a persistent id describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StorageRef<'a> {
    /// Name of the bytes: of an entry of the zip file, or a key of the legacy format.
    pub key: &'a str,
    /// Type of the elements.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// Index of the first element in another storage that this one is a view of (legacy format only).
    pub offset: usize,
}

/// A tensor as `_rebuild_tensor_v2` describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorRef<'a> {
    /// The storage.
    pub storage: StorageRef<'a>,
    /// Index of the first element in the storage.
    pub offset: usize,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    pub strides: Vec<usize>,
}

/// An object of the arena.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object<'a> {
    /// An immutable sequence.
    Tuple(Vec<Value<'a>>),
    /// A list.
    List(Vec<Value<'a>>),
    /// A dictionary, as its list of insertions.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A storage.
    Storage(StorageRef<'a>),
    /// A tensor or parameter.
    Tensor(TensorRef<'a>),
    /// Anything harmless. No tensor depends on it.
    Opaque,
}

/// A loaded pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    /// The result of the pickle.
    pub root: Value<'a>,
    /// Length of the pickle in bytes.
    pub len: usize,
}

impl<'a> Pickle<'a> {
    /// The object that a value refers to.
    pub(super) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(i) => self.objects.get(i),
            _ => None,
        }
    }

    /// Every storage in the pickle.
    pub(super) fn storages(&self) -> impl Iterator<Item = &StorageRef<'a>> {
        self.objects.iter().filter_map(|o| match o {
            Object::Storage(s) => Some(s),
            _ => None,
        })
    }

    /// The value at a string key of a dictionary. The last insertion counts, as in Python.
    pub(super) fn get(&self, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
        let Some(Object::Dict(items)) = self.object(dict) else {
            return None;
        };
        let found = items.iter().rev().find(|(k, _)| *k == Value::Str(key))?;
        Some(found.1)
    }
}

/// Loads the pickle at the start of `bytes`.
pub(super) fn load(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: std::collections::HashMap::new(),
        objects: Vec::new(),
        values: 0,
    };
    match machine.run() {
        Ok(root) => Ok(Pickle { root, len: machine.at, objects: machine.objects }),
        Err(problem) => Err(format!("pickle, near byte {}: {problem}", machine.at)),
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at the open marks. Values below the last mark cannot be popped.
    marks: Vec<usize>,
    memo: std::collections::HashMap<u32, Value<'a>>,
    objects: Vec<Object<'a>>,
    /// Values pushed so far.
    values: usize,
}

type Parsed<T> = Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Parsed<Value<'a>> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    /// Executes one instruction. The names are those of Python's `pickletools`.
    fn step(&mut self, opcode: u8) -> Parsed<()> {
        match opcode {
            // PROTO
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                v => Err(format!("protocol {v} is unknown")),
            },
            // FRAME: a hint about buffering
            0x95 => self.take(8).map(drop),
            // MARK
            b'(' => {
                if self.marks.len() == MAX_MARKS {
                    return Err("nested too deeply".into());
                }
                self.marks.push(self.stack.len());
                Ok(())
            }
            // POP, which may also pop a mark
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(drop)
            }
            // POP_MARK
            b'1' => self.pop_mark().map(drop),
            // DUP
            b'2' => {
                let top = self.pop()?;
                self.push(top)?;
                self.push(top)
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            // BININT, BININT1, BININT2
            b'J' => {
                let i = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(i.into()))
            }
            b'K' => {
                let i = self.byte()?;
                self.push(Value::Int(i.into()))
            }
            b'M' => {
                let i = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(i.into()))
            }
            // LONG1, LONG4
            0x8a => {
                let n = self.byte()? as usize;
                self.long(n)
            }
            0x8b => {
                let n = self.u32()? as usize;
                self.long(n)
            }
            // BINFLOAT
            b'G' => {
                self.take(8)?;
                self.push(Value::Float)
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' => {
                let n = self.u32()? as usize;
                self.text(n)
            }
            0x8c => {
                let n = self.byte()? as usize;
                self.text(n)
            }
            0x8d => {
                let n = self.u64()?;
                self.text(n)
            }
            // BINSTRING, SHORT_BINSTRING: str of Python 2, in which names are ASCII
            b'T' => {
                let n = self.u32()? as usize;
                self.bytes_or_text(n)
            }
            b'U' => {
                let n = self.byte()? as usize;
                self.bytes_or_text(n)
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => {
                let n = self.u32()? as usize;
                self.opaque_bytes(n)
            }
            b'C' => {
                let n = self.byte()? as usize;
                self.opaque_bytes(n)
            }
            0x8e | 0x96 => {
                let n = self.u64()?;
                self.opaque_bytes(n)
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.new_object(Object::Tuple(Vec::new())),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..opcode - 0x84 {
                    items.insert(0, self.pop()?);
                }
                self.new_object(Object::Tuple(items))
            }
            b't' => {
                let items = self.pop_mark()?;
                self.new_object(Object::Tuple(items))
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.new_object(Object::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.new_object(Object::List(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.new_object(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.new_object(Object::Dict(Vec::new()))?;
                self.extend_dict(&items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)
            }
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.new_object(Object::Opaque),
            0x90 => self.pop_mark().map(drop),
            0x91 => {
                self.pop_mark()?;
                self.new_object(Object::Opaque)
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push_global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module, name) {
                    (Value::Str(module), Value::Str(name)) => self.push_global(module, name),
                    _ => Err("an import without a name".into()),
                }
            }
            // REDUCE, BUILD, BINPERSID
            b'R' => self.reduce(),
            b'b' => self.build(),
            b'Q' => self.persistent(),
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE
            b'p' => {
                let slot = self.decimal()?;
                self.put(slot)
            }
            b'q' => {
                let slot = self.byte()?.into();
                self.put(slot)
            }
            b'r' => {
                let slot = self.u32()?;
                self.put(slot)
            }
            0x94 => self.put(self.memo.len() as u32),
            // GET, BINGET, LONG_BINGET
            b'g' => {
                let slot = self.decimal()?;
                self.fetch(slot)
            }
            b'h' => {
                let slot = self.byte()?.into();
                self.fetch(slot)
            }
            b'j' => {
                let slot = self.u32()?;
                self.fetch(slot)
            }
            // INST, OBJ, NEWOBJ, NEWOBJ_EX build instances of classes; EXT and PERSID import.
            other => Err(format!("instruction {:?} (0x{other:02x}) is not allowed", other as char)),
        }
    }

    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or("the file ends inside it")?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut a = [0; N];
        a.copy_from_slice(self.take(N)?);
        Ok(a)
    }

    fn byte(&mut self) -> Parsed<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| "impossible size".into())
    }

    fn line(&mut self) -> Parsed<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n');
        let line = &rest[..end.ok_or("the file ends inside it")?];
        self.at += line.len() + 1;
        std::str::from_utf8(line).map_err(|_| "a name that is not UTF-8".into())
    }

    fn decimal(&mut self) -> Parsed<u32> {
        self.line()?.parse().map_err(|_| "a bad number".into())
    }

    fn text(&mut self, n: usize) -> Parsed<()> {
        let text = std::str::from_utf8(self.take(n)?).map_err(|_| "a string that is not UTF-8")?;
        self.push(Value::Str(text))
    }

    fn bytes_or_text(&mut self, n: usize) -> Parsed<()> {
        let text = std::str::from_utf8(self.take(n)?);
        self.push(text.map_or(Value::Bytes, Value::Str))
    }

    fn opaque_bytes(&mut self, n: usize) -> Parsed<()> {
        self.take(n)?;
        self.push(Value::Bytes)
    }

    /// A two's complement integer of `n` bytes.
    fn long(&mut self, n: usize) -> Parsed<()> {
        let bytes = self.take(n)?;
        if n > MAX_LONG {
            return Err("an integer that is too long".into());
        }
        if n > 8 {
            return self.push(Value::Long(bytes));
        }
        let negative = bytes.last().is_some_and(|&b| b >= 0x80);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        extended[..n].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(extended)))
    }

    fn push(&mut self, value: Value<'a>) -> Parsed<()> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err("too many values".into());
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Parsed<Value<'a>> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err("pops from an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "empty stack".into())
    }

    fn pop_mark(&mut self) -> Parsed<Vec<Value<'a>>> {
        let height = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(height))
    }

    fn new_object(&mut self, object: Object<'a>) -> Parsed<()> {
        if self.objects.len() == MAX_OBJECTS {
            return Err("too many objects".into());
        }
        self.objects.push(object);
        self.push(Value::Object(self.objects.len() - 1))
    }

    /// The object on top of the stack, without popping it.
    fn top_object(&mut self) -> Parsed<&mut Object<'a>> {
        let top = self.pop()?;
        self.stack.push(top);
        match top {
            Value::Object(i) => self.objects.get_mut(i).ok_or_else(|| "no object".into()),
            _ => Err("changes something that is not a container".into()),
        }
    }

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> Parsed<()> {
        match self.top_object()? {
            Object::List(list) => list.extend(items),
            Object::Opaque => {}
            _ => return Err("appends to something that is not a list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Value<'a>]) -> Parsed<()> {
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        match self.top_object()? {
            Object::Dict(dict) => dict.extend(items.chunks_exact(2).map(|kv| (kv[0], kv[1]))),
            _ => return Err("sets an item of something that is not a dictionary".into()),
        }
        Ok(())
    }

    fn put(&mut self, slot: u32) -> Parsed<()> {
        let top = self.pop()?;
        self.stack.push(top);
        if self.memo.len() == MAX_OBJECTS {
            return Err("too large a memo".into());
        }
        self.memo.insert(slot, top);
        Ok(())
    }

    fn fetch(&mut self, slot: u32) -> Parsed<()> {
        let value = *self.memo.get(&slot).ok_or("an unknown memo slot")?;
        self.push(value)
    }

    fn push_global(&mut self, module: &'a str, name: &'a str) -> Parsed<()> {
        let short = |s: &str| s.chars().take(80).collect::<String>();
        match global(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(format!(
                "it wants to import {:?}, which is not allowed",
                format!("{}.{}", short(module), short(name))
            )),
        }
    }

    fn tuple(&self, value: Value<'a>) -> Parsed<&[Value<'a>]> {
        match value {
            Value::Object(i) => match &self.objects[i] {
                Object::Tuple(items) => Ok(items),
                _ => Err("a tuple is expected".into()),
            },
            _ => Err("a tuple is expected".into()),
        }
    }

    /// Shape or strides.
    fn sizes(&self, value: Value<'a>) -> Parsed<Vec<usize>> {
        let items = self.tuple(value)?;
        if items.len() > MAX_RANK {
            return Err("a tensor of too many dimensions".into());
        }
        items.iter().map(|&v| size(v)).collect()
    }

    /// Describes the result of one of the allowed callables.
    fn reduce(&mut self) -> Parsed<()> {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let arguments = self.tuple(arguments)?;
        let Value::Global(callable) = callable else {
            return Err("it calls something that is not allowed".into());
        };
        let result = match (callable, arguments) {
            (Global::OrderedDict, []) => Object::Dict(Vec::new()),
            // Python 2 pickles an OrderedDict as a list of pairs.
            (Global::OrderedDict, &[pairs]) => Object::Dict(self.pairs(pairs)?),
            (Global::Size, &[sizes]) => Object::Tuple(self.tuple(sizes)?.to_vec()),
            (Global::Device, _) => Object::Opaque,
            (
                Global::RebuildTensor | Global::RebuildTensorV2,
                &[storage, offset, shape, strides, ..],
            ) => self.tensor(storage, offset, shape, strides)?,
            // A parameter is its tensor. No object is made.
            (Global::RebuildParameter, &[tensor, ..]) => {
                let Value::Object(i) = tensor else {
                    return Err("a parameter that is not a tensor".into());
                };
                if !matches!(self.objects[i], Object::Tensor(_)) {
                    return Err("a parameter that is not a tensor".into());
                }
                return self.push(tensor);
            }
            (callable, _) => return Err(format!("wrong arguments for {callable:?}")),
        };
        self.charge(&result)?;
        self.new_object(result)
    }

    /// Counts the values of an object that were copied and not pushed.
    fn charge(&mut self, object: &Object<'a>) -> Parsed<()> {
        self.values += match object {
            Object::Tuple(items) => items.len(),
            Object::Dict(items) => items.len(),
            _ => 0,
        };
        if self.values > MAX_VALUES {
            return Err("too many values".into());
        }
        Ok(())
    }

    fn pairs(&self, list: Value<'a>) -> Parsed<Vec<(Value<'a>, Value<'a>)>> {
        let items = match list {
            Value::Object(i) => match &self.objects[i] {
                Object::List(items) | Object::Tuple(items) => items,
                _ => return Err("a list of pairs is expected".into()),
            },
            _ => return Err("a list of pairs is expected".into()),
        };
        let pair = |&item: &Value<'a>| {
            let kv = match item {
                Value::Object(i) => match &self.objects[i] {
                    Object::List(kv) | Object::Tuple(kv) => kv.as_slice(),
                    _ => &[],
                },
                _ => &[],
            };
            match kv {
                &[key, value] => Ok((key, value)),
                _ => Err("a pair is expected".to_string()),
            }
        };
        items.iter().map(pair).collect()
    }

    fn tensor(
        &self,
        storage: Value<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> Parsed<Object<'a>> {
        let Value::Object(i) = storage else {
            return Err("a tensor without a storage".into());
        };
        let Object::Storage(storage) = &self.objects[i] else {
            return Err("a tensor without a storage".into());
        };
        Ok(Object::Tensor(TensorRef {
            storage: storage.clone(),
            offset: size(offset)?,
            shape: self.sizes(shape)?,
            strides: self.sizes(strides)?,
        }))
    }

    /// `("storage", class, key, location, elements[, (view key, offset, elements)])`.
    fn persistent(&mut self) -> Parsed<()> {
        let id = self.pop()?;
        let items = self.tuple(id)?;
        let (&[tag, class, key, _, elements], view) =
            items.split_first_chunk::<5>().ok_or("a persistent id that is not a storage")?;
        let (Value::Str("storage"), Value::Global(Global::Storage(class)), Value::Str(key)) =
            (tag, class, key)
        else {
            return Err("a persistent id that is not a storage".into());
        };
        let mut storage = StorageRef {
            key,
            dtype: STORAGES[class].1.clone(),
            elements: size(elements)?,
            offset: 0,
        };
        if let Some(&view) = view.first()
            && view != Value::None
        {
            let &[_, offset, elements] = self.tuple(view)? else {
                return Err("a bad view of a storage".into());
            };
            storage.offset = size(offset)?;
            storage.elements = size(elements)?;
        }
        self.new_object(Object::Storage(storage))
    }

    /// Sets attributes. Only dictionaries have any here (`_metadata`), and they do not matter.
    fn build(&mut self) -> Parsed<()> {
        self.pop()?;
        match self.top_object()? {
            Object::Dict(_) | Object::Tensor(_) => Ok(()),
            _ => Err("it sets the state of something that has none".into()),
        }
    }
}

/// A number of elements.
fn size(value: Value<'_>) -> Parsed<usize> {
    match value {
        Value::Int(i) => usize::try_from(i).map_err(|_| format!("a size of {i}")),
        _ => Err("a size that is not a number".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORAGE: &[u8] =
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ";

    fn tensor() -> Vec<u8> {
        let mut p = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
        p.extend_from_slice(STORAGE);
        p.extend_from_slice(
            b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs.",
        );
        p
    }

    #[test]
    fn a_state_dict_is_described() {
        let bytes = tensor();
        let pickle = load(&bytes).unwrap();
        assert_eq!(pickle.len, bytes.len());
        let w = pickle.get(pickle.root, "w").unwrap();
        let Some(Object::Tensor(t)) = pickle.object(w) else {
            panic!("{w:?}");
        };
        assert_eq!((&t.shape[..], &t.strides[..]), (&[2, 3][..], &[3, 1][..]));
        assert_eq!(t.storage.dtype, DType::F32);
        assert_eq!((t.storage.key, t.storage.elements), ("0", 6));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = tensor();
        for n in 0..bytes.len() {
            assert!(load(&bytes[..n]).is_err(), "{n}");
        }
    }

    #[test]
    fn imports_are_refused_by_name() {
        for p in [
            &b"cos\nsystem\nX\x02\0\0\0ls\x85R."[..],
            b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
            b"cbuiltins\neval\n.",
            b"ctorch\nload\n.",
        ] {
            let problem = load(p).unwrap_err();
            assert!(problem.contains("not allowed"), "{problem}");
        }
        assert!(load(b"cos\nsystem\n.").unwrap_err().contains("os.system"));
    }

    #[test]
    fn instances_and_calls_of_other_things_are_refused() {
        for p in [
            &b"(ios\nsystem\n."[..],
            b")ccollections\nOrderedDict\n)\x81.",
            b"K\x01)R.",
            b"])R.",
            b"ctorch\nfloat32\n)R.",
            b"ctorch\nFloatStorage\nK\x01\x85R.",
            b"\x82\x01.",
            b"P1\n.",
        ] {
            assert!(load(p).is_err());
        }
    }

    #[test]
    fn cycles_and_depth_are_harmless() {
        // d = {}; d["a"] = d
        let pickle = b"}q\x00X\x01\0\0\0ah\x00s.";
        let loaded = load(pickle).unwrap();
        assert_eq!(loaded.get(loaded.root, "a"), Some(loaded.root));

        // ((((...)))): no recursion, neither here nor in drop
        let mut deep = vec![b')'];
        deep.extend(std::iter::repeat_n(0x85, 500_000));
        deep.push(b'.');
        assert!(load(&deep).is_ok());

        assert!(load(&b"(".repeat(2000)).unwrap_err().contains("deep"));
        assert!(load(&b")".repeat(MAX_OBJECTS + 1)).unwrap_err().contains("too many"));
        assert!(load(&b"K\x00".repeat(MAX_VALUES + 1)).unwrap_err().contains("too many"));
    }

    #[test]
    fn sizes_are_checked_against_the_file() {
        for p in [
            &b"X\xff\xff\xff\xffab."[..],
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.",
            b"\x8b\xff\xff\xff\x7fab.",
            b"\x96\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"r\xff\xff\xff\xff.",
            b"h\x07.",
            b"u.",
            b".",
            b"((00.",
        ] {
            assert!(load(p).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_program_panics(program: Vec<u8>) {
            let _ = load(&program);
        }

        /// Programs of pieces that make sense get further.
        #[test]
        fn no_sensible_program_panics(choices: Vec<u8>) {
            const PIECES: &[&[u8]] = &[
                b"(", b")", b"]", b"}", b"t", b"l", b"d", b"a", b"e", b"s", b"u", b"R", b"b", b"Q",
                b"0", b"1", b"2", b"N", b"K\x01", b"K\x02", b"J\xff\xff\xff\xff", b"X\x01\0\0\0a",
                b"\x85", b"\x86", b"\x87", b"\x8f", b"\x90", b"\x91", b"\x93", b"\x94", b"h\x00",
                b"q\x00", b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
                b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nSize\n", b"ctorch\nfloat32\n",
                STORAGE,
            ];
            let mut program = Vec::new();
            for choice in choices {
                program.extend_from_slice(PIECES[choice as usize % PIECES.len()]);
            }
            program.push(b'.');
            let _ = load(&program);
        }
    }

    #[test]
    fn negative_and_oversized_shapes_are_refused() {
        let mut p = b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
        p.extend_from_slice(STORAGE);
        let mut negative = p.clone();
        negative.extend_from_slice(b"K\x00J\xff\xff\xff\xff\x85K\x01\x85tR.");
        assert!(load(&negative).unwrap_err().contains("size of -1"));
        p.extend_from_slice(
            b"K\x00((((((((((0000000000(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01tK\x01\x85tR.",
        );
        assert!(load(&p).unwrap_err().contains("dimensions"));
    }
}
