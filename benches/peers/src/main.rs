//! One workload for immuta and its peers. `run` builds and starts this executable, once as the producer and once as each consumer.

mod peer;
mod peers;
mod run;
mod work;

use peer::Result;
use run::Run;

fn main() {
    let run = Run::from_args();
    if let Err(error) = begin(&run) {
        // On one line: whoever started this process puts it into the results.
        eprintln!("{} {}: {}", run.peer, run.role, error.to_string().replace('\n', " "));
        std::process::exit(1);
    }
}

fn begin(run: &Run) -> Result<()> {
    match run.peer.as_str() {
        "immuta" => work::play::<peers::immuta::Immuta>(run),
        "pipe" => work::play::<peers::pipe::Pipe>(run),
        "unix" => work::play::<peers::unix::Unix>(run),
        "redis" => work::play::<peers::redis::Redis>(run),
        "nats" => work::play::<peers::nats::Nats>(run),
        #[cfg(feature = "iceoryx2")]
        "iceoryx2" => work::play::<peers::iceoryx2::Iceoryx2>(run),
        #[cfg(feature = "kekbit")]
        "kekbit" => work::play::<peers::kekbit::Kekbit>(run),
        #[cfg(feature = "zeromq")]
        "zeromq" => work::play::<peers::zeromq::ZeroMq>(run),
        #[cfg(feature = "aeron")]
        "aeron" => work::play::<peers::aeron::Aeron>(run),
        peer => Err(format!("this executable was built without {peer}").into()),
    }
}
