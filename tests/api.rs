//! The injury: a type that crosses threads today and not tomorrow, or that should not and does.

use immuta::{Batch, Error, Reader, ReaderOptions, Record, Start, Stopper, Tailer, Writer, WriterOptions};

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}

#[test]
fn what_may_cross_threads_does() {
    is_send::<Writer>();
    is_send::<Batch<'_>>();
    is_send::<Tailer>();
    is_send::<Record<'_>>();
    is_send::<Error>();
    is_send::<(WriterOptions, ReaderOptions, Start)>();
    is_send::<Reader>();
    is_sync::<Reader>();
    is_send::<Stopper>();
    is_sync::<Stopper>();
    let _: fn(&Stopper) -> Stopper = Stopper::clone;
}

#[test]
fn a_writer_is_not_shared_between_threads() {
    // Where `Writer` is `Sync` both of these apply, the call is ambiguous, and this does not compile.
    trait Either<A> {
        fn check() {}
    }
    impl<T> Either<()> for T {}
    struct Shared;
    impl<T: Sync> Either<Shared> for T {}
    <Writer as Either<_>>::check();
}
