//! Which goroutines wait for what nobody else can reach any more, and so will wait for ever; and, in a deadlock, what each of them
//! waits for.
//!
//! What holds what is told by the collector's means. Of each object that the collector knows, and of the locks and channels that
//! these hold, the references found inside are compared with its count: what has more is held from outside, by a thread, a goroutine
//! that can run, a C variable. Parked goroutines that wait without end are nodes, too: they hold what their frames hold. From
//! what is held from outside, all that can be reached is marked; a goroutine whose channel or lock is marked may be woken, so
//! it is marked and what it holds is. Those that are left are leaked.
//!
//! Invariants:
//! * A reference counted here is one that is there, once (`shim/frames.c`). One that is missed makes its object held from outside:
//!   then a leak is not seen, but nothing is taken for a leak that is none.
//! * From the first look at a count to the last nobody runs Python, and nothing of Python's is allocated or dropped.

use crate::method::*;
use crate::shim;
use crate::shim::{Py_DECREF, Py_XDECREF};
use offset_runtime::goroutine::{Goroutine, WaitReason};
use offset_runtime::scheduler;
use pyo3_ffi::*;
use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_void};

/// Mixes an address: they are looked up by the million.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl std::hash::Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(byte.into());
        }
    }
    fn write_usize(&mut self, word: usize) {
        self.0 = (self.0 ^ word as u64 >> 3).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    fn finish(&self) -> u64 {
        // The low bits choose the place, and of those of a product the high ones are the best.
        self.0 ^ self.0 >> 32
    }
}

pub(crate) type ByAddress<T> = HashMap<usize, T, std::hash::BuildHasherDefault<Mixer>>;

/// What a goroutine waits at: an address, and for what is shared by several objects how many references the core has to it.
pub(crate) struct Place {
    pub(crate) address: usize,
    pub(crate) owners: Option<usize>,
}

/// The channel or lock that an object is, or is an end of.
pub(crate) fn place(object: Object) -> Option<Place> {
    crate::chan::place(object).or_else(|| crate::sync::place(object)).or_else(|| crate::lock::place(object))
}

struct Node {
    object: Object,
    /// References to it that were found.
    found: isize,
    marked: bool,
}

/// A goroutine that waits, and is not woken by time or the system.
struct Waiting {
    goroutine: *const Goroutine,
    object: Object,
    places: Vec<usize>,
    /// What it sends, and what else only C variables of its hold.
    values: Vec<Object>,
    /// It is entering a `with` block.
    enters: bool,
    live: bool,
}

/// How much of a frame's stack is in use, by the code and the instruction: see `offset._leaks`. `ENTERS` is added where a `with` block
/// begins.
const ENTERS: u8 = 0x80;
type Depths = ByAddress<Vec<u8>>;

#[derive(Default)]
struct Graph {
    index: ByAddress<usize>,
    nodes: Vec<Node>,
    waiting: Vec<Waiting>,
    depths: Depths,
    /// The owners of what is shared: those that the core counts, and those that were found.
    shared: ByAddress<(usize, usize)>,
    /// The nodes that are at each place.
    holders: ByAddress<Vec<usize>>,
    /// Who waits at each place.
    waiters: ByAddress<Vec<usize>>,
    /// Who can be woken by whoever has this object.
    handles: ByAddress<Vec<usize>>,
    /// The goroutine whose innermost frame is shown next.
    innermost: Option<usize>,
    marking: bool,
    work: Vec<usize>,
}

/// Whether `reason` is one that only another goroutine or thread can end.
fn ends_by_others(reason: WaitReason) -> bool {
    use WaitReason::*;
    matches!(
        reason,
        ChanSend
            | ChanReceive
            | ChanSendNil
            | ChanReceiveNil
            | Select
            | SelectNoCases
            | Mutex
            | RwMutexLock
            | RwMutexRlock
            | WaitGroup
            | Cond
            | Semaphore
            | Join
    )
}

unsafe extern "C" fn depth(code: *mut PyCodeObject, instruction: c_int, graph: *mut c_void) -> c_int {
    // SAFETY: `graph` is what `Graph::show_goroutine` gave.
    let graph = unsafe { &mut *graph.cast::<Graph>() };
    let goroutine = graph.innermost.take();
    let known = graph.depths.get(&(code as usize)).and_then(|known| known.get(instruction as usize / 2));
    match known {
        Some(&depth) if depth != u8::MAX => {
            if let Some(index) = goroutine {
                graph.waiting[index].enters = depth & ENTERS != 0;
            }
            (depth & !ENTERS).into()
        }
        _ => 0,
    }
}

unsafe extern "C" fn visited(object: Object, graph: *mut c_void) -> c_int {
    // SAFETY: `graph` is what `Graph::show_object` gave.
    unsafe { (*graph.cast::<Graph>()).reach(object) };
    0
}

impl Graph {
    fn add(&mut self, object: Object, found: isize) -> usize {
        let node = self.nodes.len();
        self.index.insert(object as usize, node);
        self.nodes.push(Node { object, found, marked: false });
        if let Some(place) = place(object) {
            self.holders.entry(place.address).or_default().push(node);
            if let Some(owners) = place.owners {
                let counts = self.shared.entry(place.address).or_insert((owners, 0));
                counts.1 += 1;
            }
        }
        node
    }

    /// A reference to `object` was found.
    unsafe fn reach(&mut self, object: Object) {
        if let Some(&node) = self.index.get(&(object as usize)) {
            if self.marking {
                if !self.nodes[node].marked {
                    self.nodes[node].marked = true;
                    self.work.push(node);
                }
            } else {
                self.nodes[node].found += 1;
            }
            return;
        }
        // SAFETY: attached; the object is alive, as somebody refers to it. Of what the collector does not know, tuples and
        // dictionaries are whole: it has let them go because it had no use for them.
        let wanted = unsafe {
            !self.marking
                && (PyTuple_CheckExact(object) != 0
                    || PyDict_CheckExact(object) != 0
                    || crate::goroutine::is_handle(object)
                    || place(object).is_some())
                && (PyObject_IS_GC(object) == 0 || PyObject_GC_IsTracked(object) == 0)
        };
        if wanted {
            let node = self.add(object, 1);
            self.work.push(node);
        }
    }

    unsafe fn show_object(&mut self, object: Object) {
        // SAFETY: attached, alone; the object is alive.
        unsafe {
            if PyObject_IS_GC(object) != 0 {
                shim::offset_object_visit(object, visited, (&raw mut *self).cast());
            }
        }
    }

    /// Shows what a goroutine holds.
    unsafe fn show_goroutine(&mut self, index: usize) {
        let waiting = &self.waiting[index];
        let (goroutine, object) = (waiting.goroutine, waiting.object);
        let mut held = waiting.values.clone();
        // SAFETY: attached, alone; the goroutine is parked, so its state and its object are there.
        unsafe {
            held.push(object);
            held.extend(crate::goroutine::held(object));
            held.extend(crate::scope::chain(object));
            for object in held {
                self.reach(object);
            }
            self.innermost = Some(index);
            let graph = (&raw mut *self).cast();
            shim::offset_thread_visit((*goroutine).context() as *mut _, depth, visited, graph);
        }
    }

    fn revive(&mut self, index: usize) {
        if !std::mem::replace(&mut self.waiting[index].live, true) {
            // SAFETY: by the contract of `leaked`.
            unsafe { self.show_goroutine(index) };
            // Whoever joins it can be woken by it.
            // SAFETY: parked, so alive.
            let address = unsafe { (*self.waiting[index].goroutine).address() };
            self.wake(address);
        }
    }

    fn wake(&mut self, address: usize) {
        for index in self.waiters.get(&address).cloned().unwrap_or_default() {
            self.revive(index);
        }
    }

    /// What is done for each object that others can reach.
    fn follow(&mut self, node: usize) {
        let object = self.nodes[node].object;
        if let Some(place) = place(object) {
            self.wake(place.address);
        }
        for index in self.handles.get(&(object as usize)).cloned().unwrap_or_default() {
            self.revive(index);
        }
        // SAFETY: by the contract of `leaked`.
        unsafe { self.show_object(object) };
    }

    fn drain(&mut self) {
        while let Some(node) = self.work.pop() {
            if self.marking {
                self.follow(node);
            } else {
                // SAFETY: by the contract of `leaked`.
                unsafe { self.show_object(self.nodes[node].object) };
            }
        }
    }

    /// Finds the goroutines that wait without end.
    unsafe fn enlist(&mut self, spared: u64, handles: bool) {
        let (mut waiting, mut others) = (Vec::new(), Vec::new());
        scheduler::visit_goroutines(|goroutine| {
            let object = crate::goroutine::object_of(goroutine);
            // SAFETY: attached and alone, so that no goroutine goes on.
            let at = unsafe { goroutine.waits_at() };
            match at {
                Some(at) if ends_by_others(goroutine.wait_reason()) && goroutine.id() != spared => {
                    waiting.push(Waiting {
                        goroutine,
                        object,
                        places: at.iter().copied().filter(|&address| address != 0).collect(),
                        values: Vec::new(),
                        enters: false,
                        live: false,
                    })
                }
                _ => others.push(goroutine.address()),
            }
        });
        self.waiting = waiting;
        for (index, waiting) in self.waiting.iter().enumerate() {
            for &address in &waiting.places {
                self.waiters.entry(address).or_default().push(index);
            }
            // SAFETY: the object of a parked goroutine is alive.
            let wakers = unsafe { crate::scope::chain(waiting.object) };
            for waker in wakers.into_iter().chain(handles.then_some(waiting.object)) {
                self.handles.entry(waker as usize).or_default().push(index);
            }
        }
        // Who joins a goroutine that can go on is not lost.
        self.shared.extend(others.into_iter().map(|address| (address, (1, 0))));
        for waiting in &self.waiting {
            // SAFETY: parked, so alive.
            let address = unsafe { (*waiting.goroutine).address() };
            self.holders.entry(address).or_default();
        }
    }

    /// What waits to be sent belongs to who sends it.
    fn enlist_values(&mut self) {
        let by_goroutine: ByAddress<usize> =
            self.waiting.iter().enumerate().map(|(index, waiting)| (waiting.goroutine as usize, index)).collect();
        let mut seen: HashSet<usize> = HashSet::new();
        let mut found = Vec::new();
        for node in &self.nodes {
            if let Some(core) = crate::chan::shared_core(node.object)
                && seen.insert(core.address())
            {
                core.visit_senders(&mut |goroutine, value| {
                    let index = by_goroutine.get(&(std::ptr::from_ref(goroutine) as usize));
                    if let (Some(&index), Some(object)) = (index, value.referent()) {
                        found.push((index, object));
                    }
                });
            }
        }
        for (index, object) in found {
            self.waiting[index].values.push(object);
            // SAFETY: by the contract of `leaked`.
            unsafe { self.reach(object) };
        }
        self.drain();
    }

    /// Up to 3.13 the interpreter has an object's `__enter__`, bound, and from 3.12 on its `__exit__`, in a C variable while the first is
    /// called. If there are as many that nobody else has as goroutines that are entering, they are these goroutines'.
    #[cfg(not(Py_3_14))]
    fn enlist_bound(&mut self) {
        let mut entering: ByAddress<Vec<usize>> = ByAddress::default();
        for (index, waiting) in self.waiting.iter().enumerate() {
            if let ([address], true) = (&waiting.places[..], waiting.enters) {
                entering.entry(*address).or_default().push(index);
            }
        }
        if entering.is_empty() {
            return;
        }
        let mut bound: HashMap<(usize, bool), Vec<usize>> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            // SAFETY: attached; the object is alive.
            unsafe {
                if node.found != 1
                    || shim::offset_refcount(node.object) != 2
                    || PyCFunction_CheckExact(node.object) == 0
                {
                    continue;
                }
                let function = node.object.cast::<PyCFunctionObject>();
                let name = std::ffi::CStr::from_ptr((*(*function).m_ml).ml_name);
                let (enter, exit) = (name == c"__enter__", name == c"__exit__");
                if (enter || exit)
                    && let Some(place) = Some((*function).m_self).filter(|object| !object.is_null()).and_then(place)
                {
                    bound.entry((place.address, enter)).or_default().push(index);
                }
            }
        }
        for (address, goroutines) in entering {
            let enters = bound.get(&(address, true)).cloned().unwrap_or_default();
            let exits =
                if cfg!(Py_3_12) { bound.get(&(address, false)).cloned().unwrap_or_default() } else { Vec::new() };
            let wanted = if cfg!(Py_3_12) { goroutines.len() } else { 0 };
            if enters.len() == goroutines.len() && exits.len() == wanted {
                for node in enters.into_iter().chain(exits) {
                    self.nodes[node].found += 1;
                    for &index in &goroutines {
                        self.waiting[index].values.push(self.nodes[node].object);
                    }
                }
            }
        }
    }

    /// Of the tuple that the arguments of a call are in, whoever makes the call has a reference. If the one that nobody was found for is
    /// the only one, it is that.
    fn enlist_arguments(&mut self) {
        for waiting in &mut self.waiting {
            // SAFETY: by the contract of `leaked`. What is in the index is an object.
            unsafe {
                let Some(&node) = self.index.get(&crate::goroutine::arguments(waiting.object)) else { continue };
                let node = &mut self.nodes[node];
                if PyTuple_CheckExact(node.object) != 0 && shim::offset_refcount(node.object) == node.found + 1 {
                    node.found += 1;
                    waiting.values.push(node.object);
                }
            }
        }
    }

    /// Counts all references that can be found.
    unsafe fn count(&mut self, objects: Object) {
        // SAFETY: by the contract of `leaked`; the list holds its objects, a reference each.
        unsafe {
            for at in 0..PyList_GET_SIZE(objects) {
                self.add(PyList_GET_ITEM(objects, at), 1);
            }
            for node in 0..self.nodes.len() {
                self.show_object(self.nodes[node].object);
            }
            self.drain();
            for index in 0..self.waiting.len() {
                self.show_goroutine(index);
            }
            self.drain();
        }
    }

    /// Marks what can be reached from outside.
    unsafe fn mark(&mut self) {
        self.marking = true;
        for node in 0..self.nodes.len() {
            // SAFETY: by the contract of `leaked`.
            let count = unsafe { shim::offset_refcount(self.nodes[node].object) };
            if count > self.nodes[node].found && !self.nodes[node].marked {
                self.nodes[node].marked = true;
                self.work.push(node);
            }
        }
        let outside: Vec<usize> = self
            .waiters
            .keys()
            .copied()
            .filter(|address| {
                // Nobody was found who has it: then somebody has it who was not looked at.
                self.shared.get(address).is_some_and(|&(owners, found)| owners > found)
                    || !self.holders.contains_key(address)
            })
            .collect();
        for address in outside {
            self.wake(address);
        }
        self.drain();
    }

    /// Those of the waiting goroutines that are `wanted`, by id, each with what it waits for, as far as that was found.
    unsafe fn named(&self, wanted: impl Fn(&Waiting) -> bool) -> Vec<(Object, Vec<Object>)> {
        let mut found = Vec::new();
        for waiting in self.waiting.iter().filter(|waiting| wanted(waiting)) {
            let mut held: Vec<Object> = Vec::new();
            for address in &waiting.places {
                let nodes = self.holders.get(address).map_or(&[][..], Vec::as_slice);
                let named = nodes.iter().find(|&&node| !crate::sync::is_member(self.nodes[node].object));
                if let Some(&node) = named.or(nodes.first()) {
                    // SAFETY: by the contract of `leaked`: what is a node is alive.
                    held.push(unsafe { Py_NewRef(self.nodes[node].object) });
                }
            }
            // SAFETY: parked, so alive, and so is its object.
            found.push(unsafe { ((*waiting.goroutine).id(), Py_NewRef(waiting.object), held) });
        }
        found.sort_by_key(|&(id, ..)| id);
        found.into_iter().map(|(_, object, held)| (object, held)).collect()
    }
}

/// The goroutines that are leaked, each with the channels and locks that it waits for. `objects` are what the collector knows.
///
/// # Safety
/// Attached, and alone.
unsafe fn leaked(objects: Object, depths: Depths, spared: u64, handles: bool) -> Vec<(Object, Vec<Object>)> {
    let mut graph = Graph { depths, ..Graph::default() };
    // SAFETY: by contract.
    unsafe {
        graph.enlist(spared, handles);
        if graph.waiting.is_empty() {
            return Vec::new();
        }
        graph.count(objects);
        graph.enlist_values();
        graph.enlist_arguments();
        #[cfg(not(Py_3_14))]
        graph.enlist_bound();
        graph.mark();
        graph.named(|waiting| !waiting.live)
    }
}

/// The goroutines that only others can wake, each with the channels, locks and goroutines that it waits for.
///
/// # Safety
/// As for `leaked`.
unsafe fn waits(objects: Object, depths: Depths) -> Vec<(Object, Vec<Object>)> {
    let mut graph = Graph { depths, ..Graph::default() };
    // SAFETY: by contract.
    unsafe {
        graph.enlist(0, false);
        if graph.waiting.is_empty() {
            return Vec::new();
        }
        graph.count(objects);
        graph.enlist_values();
        for index in 0..graph.waiting.len() {
            let (goroutine, object) = (graph.waiting[index].goroutine, graph.waiting[index].object);
            let address = (*goroutine).address();
            if let Some(&node) = graph.index.get(&(object as usize)) {
                graph.holders.entry(address).or_default().push(node);
            }
        }
        graph.named(|_| true)
    }
}

/// The table of `offset._leaks`, out of reach of Python. The dictionary holds the code.
unsafe fn read_depths(table: Object) -> Option<Depths> {
    // SAFETY: attached; nobody else has the table.
    unsafe {
        let mut depths = Depths::default();
        let (mut at, mut code, mut bytes) = (0, NULL, NULL);
        while PyDict_Next(table, &raw mut at, &raw mut code, &raw mut bytes) != 0 {
            let (mut data, mut size) = (std::ptr::null_mut(), 0);
            if PyBytes_AsStringAndSize(bytes, &raw mut data, &raw mut size) < 0 {
                return None;
            }
            depths.insert(code as usize, std::slice::from_raw_parts(data.cast(), size as usize).to_vec());
        }
        Some(depths)
    }
}

unsafe extern "C" fn find_leaks(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 4];
    // SAFETY: the calling convention.
    unsafe {
        let names = ["objects", "depths", "spared", "handles"];
        if !parse("find_leaks", args, count, keywords, &names, 4, &mut out) {
            return NULL;
        }
        if PyList_Check(out[0]) == 0 || PyDict_Check(out[1]) == 0 {
            return crate::error::type_error("find_leaks() takes a list, a dict, a number and a truth value");
        }
        let Some(depths) = read_depths(out[1]) else { return NULL };
        let spared = PyLong_AsUnsignedLongLong(out[2]);
        let handles = PyObject_IsTrue(out[3]);
        if !PyErr_Occurred().is_null() {
            return NULL;
        }
        as_list(crate::dump::alone(|| leaked(out[0], depths, spared, handles != 0)))
    }
}

unsafe extern "C" fn find_waits(_: Object, args: *const Object, count: Py_ssize_t, keywords: Object) -> Object {
    let mut out = [NULL; 2];
    // SAFETY: the calling convention.
    unsafe {
        if !parse("find_waits", args, count, keywords, &["objects", "depths"], 2, &mut out) {
            return NULL;
        }
        if PyList_Check(out[0]) == 0 || PyDict_Check(out[1]) == 0 {
            return crate::error::type_error("find_waits() takes a list and a dict");
        }
        let Some(depths) = read_depths(out[1]) else { return NULL };
        as_list(crate::dump::alone(|| waits(out[0], depths)))
    }
}

unsafe extern "C" fn taker(_: Object, object: Object) -> Object {
    crate::sync::taker(object).map_or_else(none, int)
}

/// Takes the references over.
unsafe fn as_list(found: Vec<(Object, Vec<Object>)>) -> Object {
    // SAFETY: attached; the references are ours.
    unsafe {
        let list = PyList_New(0);
        for (object, held) in found {
            let places = PyList_New(0);
            for part in held {
                if !places.is_null() {
                    PyList_Append(places, part);
                }
                Py_DECREF(part);
            }
            let pair = if places.is_null() { NULL } else { PyTuple_Pack(2, object, places) };
            if !list.is_null() && !pair.is_null() {
                PyList_Append(list, pair);
            }
            Py_XDECREF(pair);
            Py_XDECREF(places);
            Py_DECREF(object);
        }
        if PyErr_Occurred().is_null() {
            return list;
        }
        Py_XDECREF(list);
        NULL
    }
}

pub(crate) fn functions() -> Vec<PyMethodDef> {
    vec![
        fast(
            c"find_leaks",
            find_leaks,
            c"find_leaks(objects, depths, spared, handles) -> list\n\nThe goroutines that wait for what nobody else can reach, each with what it waits for.",
        ),
        fast(
            c"find_waits",
            find_waits,
            c"find_waits(objects, depths) -> list\n\nThe goroutines that only others can wake, each with what it waits for.",
        ),
        one_arg(
            c"taker",
            taker,
            c"taker(lock) -> int | None\n\nThe id of the goroutine that has taken a lock, 0 for a thread.",
        ),
    ]
}
