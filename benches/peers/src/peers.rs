//! The peers, a file each.

#[cfg(feature = "aeron")]
pub mod aeron;
mod framing;
#[cfg(feature = "iceoryx2")]
pub mod iceoryx2;
pub mod immuta;
#[cfg(feature = "kekbit")]
pub mod kekbit;
pub mod nats;
pub mod pipe;
pub mod redis;
pub mod unix;
#[cfg(feature = "zeromq")]
pub mod zeromq;
