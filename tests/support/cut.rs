//! What a disk may hold after a power cut: of every page that was not flushed any version, of every name and size the old or the
//! new. Each is recovered by a writer, and compared with what was appended.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use immuta::{Durability, Error, Evidence, Reader, Writer, WriterOptions};
use tempfile::TempDir;

use crate::disk::{Cut, Disk, Versions, apply};
use crate::forge::{self, Identity, identity};
use crate::support::content::Random;
use crate::support::{encode, parse};

pub const LOG: &str = "events.log";
const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// A directory for models, in memory where that can be had.
pub fn place() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    place.expect("a temporary directory")
}

/// The files after a power cut, by name.
pub type Files = BTreeMap<String, (usize, Vec<u8>)>;

/// Something that is on the disk as it was or as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Piece {
    Size(usize),
    Page(usize, usize),
}

fn part(bytes: &[u8], from: usize, len: usize) -> &[u8] {
    &bytes[from.min(bytes.len())..(from + len).min(bytes.len())]
}

/// The pieces of a file of which there are several versions.
fn pieces(file: usize, versions: &Versions) -> Vec<Piece> {
    let versions = &versions.0;
    let longest = versions.iter().map(|bytes| bytes.len()).max().unwrap_or(0);
    let differ = |at: usize| versions.iter().any(|bytes| part(bytes, at, PAGE) != part(&versions[0], at, PAGE));
    // A page of zeros that the size alone brings is no piece of its own.
    let is_zero = |at: usize| {
        versions.iter().all(|bytes| part(bytes, at, PAGE) == part(&[0; PAGE], 0, part(bytes, at, PAGE).len()))
    };
    let is_news = |at: usize| differ(at) && !is_zero(at);
    let pages = (0..longest.div_ceil(PAGE)).filter(|page| is_news(page * PAGE)).map(|page| Piece::Page(file, page));
    let sizes = versions.iter().any(|bytes| bytes.len() != versions[0].len()).then_some(Piece::Size(file));
    sizes.into_iter().chain(pages).collect()
}

/// Which version of a piece is on the disk: one for all of it, or one for each sector.
type Choice<'a> = &'a mut dyn FnMut(Piece, usize) -> usize;

fn image(versions: &Versions, pieces: &[Piece], choose: Choice<'_>) -> Vec<u8> {
    let all = &versions.0;
    // The size comes first.
    let size = pieces.first().filter(|piece| matches!(piece, Piece::Size(_))).map_or(0, |piece| choose(*piece, 0));
    let mut bytes = vec![0; all[size].len()];
    let n = bytes.len().min(all[0].len());
    bytes[..n].copy_from_slice(&all[0][..n]);
    for piece in pieces {
        let Piece::Page(_, page) = *piece else { continue };
        for sector in 0..PAGE / SECTOR {
            let at = page * PAGE + sector * SECTOR;
            let from = part(&all[choose(*piece, sector)], at, SECTOR);
            let end = (at + SECTOR).min(bytes.len());
            if at < end {
                let to = &mut bytes[at..end];
                to.fill(0);
                let n = from.len().min(to.len());
                to[..n].copy_from_slice(&from[..n]);
            }
        }
    }
    bytes
}

/// How much of the possible is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Cuts of a scenario, chosen at random where there are more.
    pub cuts: usize,
    /// Up to so many pieces that may be old or new, all of the combinations.
    pub all_up_to: usize,
    /// Beyond, and besides, random ones.
    pub random: usize,
    /// Recoveries of which the power is cut once more, in a scenario.
    pub again: usize,
}

/// What is demanded of a recovery.
#[derive(Clone, Debug)]
pub struct Demand {
    pub records: Vec<Vec<u8>>,
    /// Where a batch or a record of its own ends: only there a log may end.
    pub ends: BTreeSet<usize>,
    pub identities: HashMap<Identity, usize>,
    pub seed: u64,
}

impl Cut {
    /// All that may be on the disk, as far as the effort goes.
    pub fn each(&self, effort: Effort, random: &mut Random, mut each: impl FnMut(Files)) {
        let mut known = HashSet::new();
        let of_file: Vec<Vec<Piece>> = self.files.iter().enumerate().map(|(file, it)| pieces(file, it)).collect();
        for done in 0..=self.changes.len() {
            let mut names = self.names.clone();
            self.changes[..done].iter().for_each(|change| apply(&mut names, change));
            let pieces: Vec<Piece> = names.values().flat_map(|file| of_file[*file].clone()).collect();
            let mut emit = |choose: Choice<'_>| {
                // What was chosen is compared, not what came of it: that is long.
                let mut hasher = DefaultHasher::new();
                let mut noted = |piece: Piece, sector: usize| {
                    let choice = choose(piece, sector);
                    (piece, choice).hash(&mut hasher);
                    choice
                };
                let mut file = |file: &usize| (*file, image(&self.files[*file], &of_file[*file], &mut noted));
                let files: Files = names.iter().map(|(name, number)| (name.clone(), file(number))).collect();
                names.hash(&mut hasher);
                if known.insert(hasher.finish()) {
                    each(files);
                }
            };
            let newest = |piece: Piece| match piece {
                Piece::Size(file) | Piece::Page(file, _) => self.files[file].newest(),
            };
            if pieces.len() <= effort.all_up_to {
                for mask in 0..1u32 << pieces.len() {
                    let is_new = |piece| pieces.iter().position(|p| *p == piece).is_some_and(|n| mask >> n & 1 == 1);
                    emit(&mut |piece, _| if is_new(piece) { newest(piece) } else { 0 });
                }
            } else {
                emit(&mut |_, _| 0);
                emit(&mut |piece, _| newest(piece));
                // The count is there and nothing else, or all but one page: what a disk is fond of doing.
                let one = pieces[random.below(pieces.len() as u64) as usize];
                emit(&mut |piece, _| if piece == one { 0 } else { newest(piece) });
                let has_size = |piece| matches!(piece, Piece::Size(_));
                emit(&mut |piece, _| if piece == one || has_size(piece) { newest(piece) } else { 0 });
            }
            for _ in 0..effort.random {
                let seed = random.next();
                let bias = 1 + random.below(7);
                emit(&mut |piece, sector| {
                    let mut hasher = DefaultHasher::new();
                    (seed, piece).hash(&mut hasher);
                    let mut random = Random(hasher.finish());
                    // A few pages are torn.
                    if random.below(6) == 0 {
                        random = Random(random.next() ^ sector as u64);
                    }
                    match (random.below(8) < bias, random.below(3)) {
                        (true, 0) => random.below(newest(piece) as u64 + 1) as usize,
                        (true, _) => newest(piece),
                        (false, _) => 0,
                    }
                });
            }
        }
    }
}

/// Writes the files of a machine that has gone down and come up.
fn boot(files: &Files, identities: &HashMap<Identity, usize>, dir: &Path) {
    let mut log = None;
    for (name, (file, bytes)) in files {
        let path = dir.join(name);
        let mut bytes = bytes.clone();
        if let Some(of) = forge::log_of(&bytes) {
            let ours = log.filter(|(log, _)| identities.get(&of) == Some(log));
            forge::rename_log(&mut bytes, ours.map_or((1, 1), |(_, identity)| identity));
            forge::reboot(&mut bytes);
        }
        std::fs::write(&path, bytes).expect("a file of the crash");
        // The log's name comes first.
        if name == LOG {
            log = Some((*file, identity(&path).expect("just written")));
        }
    }
}

fn options(control: &Path) -> WriterOptions {
    let mut options = WriterOptions::new();
    options.control_dir(control).durability(Durability::Buffered).window(2 << 20);
    options
}

/// A directory with the files of a crash, and one for control pages.
struct Machine {
    place: TempDir,
    dir: PathBuf,
    control: PathBuf,
}

impl Machine {
    fn new() -> Machine {
        let place = place();
        let [dir, control] = ["log", "control"].map(|name| place.path().join(name));
        [&dir, &control].into_iter().for_each(|dir| std::fs::create_dir(dir).expect("a directory"));
        Machine { place, dir, control }
    }
}

/// What a recovery must not have done, or must have.
pub fn check(cut: &Cut, files: &Files, demand: &Demand) -> usize {
    let machine = Machine::new();
    boot(files, &demand.identities, &machine.dir);
    let outcome = std::panic::catch_unwind(|| recover(cut, files, demand, &machine));
    outcome.unwrap_or_else(|panic| {
        // What the recovery met, to be looked at.
        let kept = std::env::temp_dir().join(format!("immuta-power-cut-{}", demand.seed));
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::create_dir_all(&kept).expect("a directory for what is kept");
        boot(files, &demand.identities, &kept);
        eprintln!("cut {}; seed {}; the files are in {}", cut.what, demand.seed, kept.display());
        std::panic::resume_unwind(panic)
    })
}

fn recover(cut: &Cut, files: &Files, demand: &Demand, machine: &Machine) -> usize {
    let path = machine.dir.join(LOG);
    let options = options(&machine.control);
    let writer = options.open(&path).unwrap_or_else(|error| panic!("a plain power cut is refused: {error}"));
    let n = holds(&writer, &path, cut, demand);
    let recovery = writer.stat().expect("stat").recovery.expect("a report");
    if let Some(discarded) = &recovery.discarded {
        let at = discarded.position as usize;
        let old = files[LOG].1.get(at..).unwrap_or_default();
        let lost = std::fs::read(&discarded.path).expect("the side file");
        // Zeros at the end, of reserved space, need not be kept.
        let is_whole = old.starts_with(&lost) && old[lost.len()..] == vec![0; old.len() - lost.len()];
        assert!(is_whole, "the side file has other bytes");
        let counted = u64::from_le_bytes(files[LOG].1[..8].try_into().expect("a count"));
        assert_eq!(discarded.records, counted - n as u64);
    }
    let history_id = writer.stat().expect("stat").history_id;
    writer.close().expect("a close");
    let exact = encode(&demand.records[..n]);
    assert!(std::fs::read(&path).expect("the log") == exact, "a close leaves the records");
    let report = Reader::open(&path).and_then(|reader| reader.verify(|_| true)).expect("a sound log");
    assert_eq!(report.records, n as u64);
    let again = options.open(&path).expect("a log that was closed");
    let stat = again.stat().expect("stat");
    let second = stat.recovery.clone().expect("a report");
    assert_eq!((stat.records, stat.history_id), (n as u64, history_id), "a second recovery changes nothing");
    assert!(second.discarded.is_none() && second.cut_bytes == 0 && second.evidence == Evidence::Closed, "{second:?}");
    drop(again);
    assert!(std::fs::read(&path).expect("the log") == exact, "a second recovery changes nothing");
    n
}

/// The log is as far as was promised what was appended, and nothing else; returns how many records it holds.
#[track_caller]
fn holds(writer: &Writer, path: &Path, cut: &Cut, demand: &Demand) -> usize {
    let found = parse(&std::fs::read(path).expect("the log"));
    let n = found.len();
    assert_eq!(writer.stat().expect("stat").records, n as u64);
    let recovery = writer.stat().expect("stat").recovery;
    assert!(n >= cut.promised, "{n} records are left of {} that were promised; {recovery:?}", cut.promised);
    assert!(n <= cut.asked, "{n} records, and {} were appended; {recovery:?}", cut.asked);
    let differs = found.iter().zip(&demand.records).position(|(found, appended)| found != appended);
    assert_eq!(differs, None, "a record is not the one that was appended; {recovery:?}");
    assert!(demand.ends.contains(&n), "{n} records end within a batch; {recovery:?}");
    n
}

/// A writer refuses these files as damaged, and leaves them as they are.
pub fn is_refused(files: &Files, demand: &Demand) {
    let machine = Machine::new();
    boot(files, &demand.identities, &machine.dir);
    let path = machine.dir.join(LOG);
    match options(&machine.control).open(&path) {
        Err(Error::Damaged { .. }) => {}
        other => panic!("damage is not found: {other:?}"),
    }
    assert!(std::fs::read(&path).expect("the log") == files[LOG].1, "it was changed");
}

/// Recovers, and cuts the power again at every flush of that, and so on a third time; what is kept stays.
pub fn check_again(cut: &Cut, files: &Files, demand: &Demand, random: &mut Random, effort: Effort) -> usize {
    let machine = Machine::new();
    boot(files, &demand.identities, &machine.dir);
    let disk = Disk::new(&machine.dir, cut.asked, cut.promised);
    let writer = options(&machine.control).open(machine.dir.join(LOG)).expect("a plain power cut");
    let n = holds(&writer, &machine.dir.join(LOG), cut, demand);
    disk.promise(cut.promised, "a recovery");
    let cuts = disk.take_cuts();
    let identities = disk.identities();
    disk.end();
    drop(writer);
    let demand = Demand { identities, ..demand.clone() };
    let mut states = 0;
    for again in &cuts {
        let again = Cut { what: format!("{}, then {} of its recovery", cut.what, again.what), ..again.clone() };
        again.each(effort, random, |files| {
            states += 1;
            let kept = check(&again, &files, &demand);
            assert_eq!(kept, n, "a recovery that is cut ends like one that is not: {}", again.what);
        });
    }
    drop(machine.place);
    states
}

/// Looks at the cuts of a scenario; returns how many states of the disk were recovered.
pub fn check_all(cuts: &[Cut], demand: &Demand, effort: Effort, random: &mut Random) -> usize {
    let mut chosen: Vec<&Arc<Cut>> = Vec::new();
    let cuts: Vec<Arc<Cut>> = cuts.iter().cloned().map(Arc::new).collect();
    let mut left: Vec<&Arc<Cut>> = cuts.iter().collect();
    while !left.is_empty() && chosen.len() < effort.cuts {
        chosen.push(left.swap_remove(random.below(left.len() as u64) as usize));
    }
    let mut states = 0;
    let mut kept = Vec::new();
    for cut in chosen {
        let mut dice = random.clone();
        cut.each(effort, random, |files| {
            states += 1;
            check(cut, &files, demand);
            if kept.len() < effort.again && dice.below(16) == 0 {
                kept.push((cut, files));
            }
        });
    }
    let short = Effort { all_up_to: 3, random: 2, ..effort };
    for (cut, files) in kept {
        states += check_again(cut, &files, demand, random, short);
    }
    states
}
