//! Maps and sets out of iterators, in few bytes of program.

/// What `collect` makes of an iterator, for a `BTreeMap` or a `BTreeSet`.
///
/// `collect` sorts first, and the compiler writes that sort anew for each iterator: 5 kB of program each time. Here the
/// items are inserted one after another, which takes as long for the few that there are.
pub fn gather<C: Default + Extend<T>, T>(items: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(items);
    all
}
