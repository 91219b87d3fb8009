/*
 * The control protocol: writers that come one after the other, the helper thread of the living one, followers, time.
 * Every load from and every store into shared memory, every look at a name or a lock, and every system call is one step;
 * between any two steps anybody else may go on. What is one step in here is one `atomic` block.
 * Names are those of FORMAT.md and src/; README.md tells what is left out.
 *
 * The size of a case is given by the defines below; `check` runs several. Defines that begin with BUG_ break the protocol.
 */

#ifndef FOLLOWERS
#define FOLLOWERS 1  /* at most 3 */
#endif
#ifndef RUNS
#define RUNS 1       /* writers, one after the other */
#endif
#ifndef RECORDS
#define RECORDS 2
#endif
#ifndef BATCH
#define BATCH 1      /* the most records that are published together */
#endif
#ifndef DEATHS
#define DEATHS 0     /* how many writers may be killed: between any two steps */
#endif
#ifndef STOPS
#define STOPS 0      /* how often a writer may be stopped (SIGSTOP): between any two steps, for one tick, for three, or for good */
#endif
#ifndef CLOSES
#define CLOSES 0     /* whether a writer may close before it has written all, and another come */
#endif
#ifndef PAGELESS
#define PAGELESS 0   /* how many writers may have to do without a page */
#endif
#ifndef RESTS
#define RESTS 0      /* how often a living writer may idle for longer than a sleep's bound */
#endif
#ifndef EARLY
#define EARLY 0      /* whether one sleep or interval of each follower may end early: by a signal, for no reason, by a bound that just then ends */
#endif
#ifndef HOSTILE
#define HOSTILE 0    /* how many acts of one who writes anything into the doorbell and takes sleepers off the futex */
#endif
#ifndef LOOKS
#define LOOKS 0      /* pairs that a reader that does nothing else looks at */
#endif
#ifndef SLEEP_ALONE
#define SLEEP_ALONE 0  /* sleeping and waking alone: all must be done before the first tick, nobody checks up or looks at a slot */
#endif
#ifndef SETTLED
#define SETTLED SLEEP_ALONE  /* whether the followers follow the page already when the first record comes */
#endif
#ifndef SLOTS
#define SLOTS 2      /* 32 in FORMAT.md */
#endif
#ifndef WAKE_MOST
#define WAKE_MOST 2  /* sleepers that the writer wakes itself */
#endif

#ifndef CROWDS
#define CROWDS 0     /* whether the writer may leave all of them to the helper */
#endif

#ifndef CALM
#define CALM (SLEEP_ALONE -> 0 : 3)  /* ticks after the last act of a writer, within which all must have been delivered */
#endif

#ifdef BUG_WOKEN_TOO_SOON
#define WOKEN_TOO_SOON 1
#else
#define WOKEN_TOO_SOON 0
#endif

#ifdef BUG_NO_HELPER
#define NO_HELPER 1
#else
#define NO_HELPER 0
#endif

#define NONE 15
#define TORN 14
#define MOST 255        /* the largest number that the doorbell holds */

/* A page's state. */
#define OPEN 1
#define CLOSED 2
#define SUPERSEDED 4

/* Where a follower goes on after its check-up. */
#define NEW 0
#define LOOK 1
#define ELSEWHERE 2
#define COUNT 3

typedef Page {
    byte state;
    byte end;            /* a record takes one unit, so that the end of n records is n, and a whole pair is two equal numbers */
    byte commit;
    byte slot_count[SLOTS];
    byte slot_end[SLOTS];
    byte announced;      /* its doorbell */
    byte queue;          /* the kernel's queue of the futex: one bit for each sleeper */
    bit told;            /* ghost: everybody who slept on it has been woken for good */
    byte by;             /* ghost: who superseded it */
};

/* The file. */
byte count;              /* the number at offset 0 */
byte bytes[RECORDS];     /* of each record: 0, or TORN, or 1 + the turn that wrote it */
/* Names in the control directory: which page, and whose doorbell. A run's page has the run's number. */
byte page_name = NONE, bell_name = NONE;
Page page[RUNS];
/* The writer that is alive or the last one. */
byte turn;
bit locked;              /* both locks; given back by the kernel when the process dies */
bit running;             /* not stopped: what the heartbeat tells */
bit named;               /* ghost: its page has got its name */
bit asked;               /* `more_to_wake` in src/upkeep.rs */
byte helper_woken;
byte deaths = DEATHS, stops = STOPS, rests = RESTS, pageless = PAGELESS;
byte until;              /* ticks that the writer still has to wait for */
bit over;                /* no writer does anything any more */

/* Followers. */
byte next[3];
byte view[3];            /* the page that is followed, or NONE: the count */
byte dead[3];            /* `Opened::dead`: emptied by a tick at which that page's heartbeat moves */
byte beat_of[3];         /* whose heartbeat was looked at; NONE once it has moved since */
bit beat_old[3];         /* and a tick has passed without it */
bit due[3];              /* a check-up is due */
bit ticked[3];           /* the bound has come */
bit limbo[3];            /* taken off the futex by a hostile party, and not awake */
bit stop;                /* the stopper of all */

/* Ghosts. */
byte published_as[RECORDS];   /* the bytes of each record as it was counted */
byte was_published = 1;       /* bit n: there was a time when n records were published */
byte acts = HOSTILE;

#define whole(c, e) ((c) == (e) && ((was_published >> (c)) & 1))
#define last_pair_is_whole(p) whole(page[p].slot_count[page[p].commit % SLOTS], page[p].slot_end[page[p].commit % SLOTS])

/* FUTEX_WAKE: at most `most` of those who sleep, whichever; `n` is how many. */
inline futex_wake(p, most, n) {
    n = 0;
    do
    :: n < most && (page[p].queue & 1) -> page[p].queue = page[p].queue & 6; n++
    :: n < most && (page[p].queue & 2) -> page[p].queue = page[p].queue & 5; n++
    :: n < most && (page[p].queue & 4) -> page[p].queue = page[p].queue & 3; n++
    :: n == most || page[p].queue == 0 -> break
    od
}

/* ------------------------------------------------------------------------------------------------- the writers */

/* One step of a writer, before which it may be killed, or stopped and then go on, be killed, or stay stopped for good. */
#define STEP(act) \
    do \
    :: atomic { until == 0 -> running = 1; act break } \
    :: atomic { until == 0 && deaths > 0 -> deaths--; goto died } \
    :: atomic { until == 0 && stops > 0 -> stops--; running = 0; until = 1 } \
    :: atomic { until == 0 && stops > 0 -> stops--; running = 0; until = 3 } \
    :: atomic { until == 0 && stops > 0 -> stops--; running = 0; over = 1; goto out } \
    od

/* `protocol::publish` on the page `p`. In memory the commit word is there when the fence behind it has been executed: P4. */
#if SLEEP_ALONE
/* Nobody looks at the slots then. */
#define PUBLISH_BUT_COMMIT(p, event, pair_count, pair_end) STEP(page[p].end = pair_end;)
#else
#define PUBLISH_BUT_COMMIT(p, event, pair_count, pair_end) \
    STEP(page[p].slot_count[(event) % SLOTS] = pair_count;); \
    STEP(page[p].slot_end[(event) % SLOTS] = pair_end;); \
    STEP(page[p].end = pair_end;)
#endif

proctype writer() {
    byte event, woken, n, old = NONE, old_event, old_count, old_end, upto, announced;

    if
    :: SETTLED -> goto work
    :: else
    fi;
start:
    skip;
    d_step {
        locked = 1; running = 1; named = 0; helper_woken = 0; event = 0; woken = 0;
        if
        :: page[turn].state != 0 -> turn++
        :: else
        fi;
        /* `recover`: what lies above the count is cut. */
        n = count;
        do
        :: n < RECORDS -> bytes[n] = 0; n++
        :: else -> break
        od;
        n = 0;
        old = page_name;
        /* The new page is filled under another name, where nobody sees it. */
        page[turn].state = OPEN; page[turn].by = NONE;
        page[turn].end = count; page[turn].slot_count[0] = count; page[turn].slot_end[0] = count
    }
    if
    :: atomic { pageless > 0 -> pageless--; goto supersede }
    :: true
    fi;
#ifdef BUG_SUPERSEDE_FIRST
    goto supersede;
name_it:
#endif
    STEP(bell_name = turn;);
    STEP(page_name = turn; named = 1;);
#ifdef BUG_SUPERSEDE_FIRST
    goto work;
#endif

supersede:
    if
    :: old != NONE
    :: else -> goto superseded
    fi;
    STEP(page[old].state = SUPERSEDED; page[old].by = turn;
        /* The dead writer stores no more, so that these may be one step. */
        old_event = page[old].commit + 1;
        old_count = page[old].slot_count[page[old].commit % SLOTS];
        old_end = page[old].slot_end[page[old].commit % SLOTS];);
#ifdef KNOWN_END_FALLS
    assert(old_end >= page[old].end);
#endif
    PUBLISH_BUT_COMMIT(old, old_event, old_count, old_end);
    STEP(page[old].commit = old_event; old_event = 0; old_count = 0; old_end = 0;);
    STEP(page[old].queue = 0; page[old].told = 1;);
superseded:
#ifdef BUG_SUPERSEDE_FIRST
    if
    :: !named && pageless == PAGELESS -> goto name_it
    :: else
    fi;
#endif
    if
    :: named || old == NONE
    :: !named && old != NONE -> STEP(page_name = NONE;)
    fi;

work:
    old = NONE;
    if
    :: count < RECORDS -> upto = count + 1
    :: BATCH > 1 && count + 2 <= RECORDS -> upto = count + 2
    :: CLOSES > 0 || (count == RECORDS && !SLEEP_ALONE) -> goto close
    :: atomic { count == RECORDS -> over = 1; goto out }
    :: atomic { rests > 0 -> rests--; until = 1 }; atomic { until == 0 -> goto work }
    :: atomic { deaths > 0 -> deaths--; goto died }
    fi;

    /* An append. */
#if SLEEP_ALONE
    atomic { bytes[count] = 1 + turn; bytes[upto - 1] = 1 + turn }
#else
    STEP(bytes[count] = TORN; bytes[upto - 1] = TORN;);
    STEP(bytes[count] = 1 + turn; bytes[upto - 1] = 1 + turn;);
#endif
#ifdef BUG_PAGE_FIRST
    goto to_page;
counting:
#endif
    STEP(published_as[count] = bytes[count]; published_as[upto - 1] = bytes[upto - 1];
        count = upto; was_published = was_published | (1 << upto););
#ifdef BUG_PAGE_FIRST
    goto work;
to_page:
#endif
    if
    :: named -> event++
    :: else -> upto = 0; goto work
    fi;
    PUBLISH_BUT_COMMIT(turn, event, upto, upto);
    upto = 0;
    /* `someone_sleeps` */
#ifdef BUG_NO_WRITER_FENCE
    /* The store of the commit word lies in a store buffer while the load behind it is executed. */
    STEP(announced = page[turn].announced;);
    STEP(page[turn].commit = event;);
#else
    STEP(page[turn].commit = event;);
    STEP(announced = page[turn].announced;);
#endif
    if
    :: announced > woken && announced <= event + 1 -> announced = 0
    :: else -> announced = 0; goto awake
    fi;
    /* `ControlWriter::wake` */
    STEP(woken = (helper_woken > woken -> helper_woken : woken););
#ifdef BUG_DOORBELL_CLEARED
    STEP(page[turn].announced = 0;);
#else
    STEP(announced = page[turn].announced;);
    if
    :: announced > woken && announced <= event + 1 -> announced = 0
    :: else -> announced = 0; goto awake
    fi;
#endif
    if
    :: CROWDS -> STEP(asked = 1 - NO_HELPER;); goto awake
    :: true -> skip
    fi;
    STEP(futex_wake(turn, WAKE_MOST, n););
    if
    :: n < WAKE_MOST || WOKEN_TOO_SOON -> woken = event; n = 0
    :: else -> n = 0; STEP(asked = 1 - NO_HELPER;)
    fi;
awake:
#ifdef BUG_PAGE_FIRST
    upto = page[turn].end;
    goto counting;
#else
    goto work;
#endif

close:
    atomic {
        asked = 0;
        if
        :: named -> event++
        :: else -> goto unlock
        fi
    }
    STEP(page[turn].state = CLOSED;);
    PUBLISH_BUT_COMMIT(turn, event, count, count);
    STEP(page[turn].commit = event;);
    STEP(page[turn].queue = 0; page[turn].told = 1;);
    STEP(page_name = NONE;);
    STEP(bell_name = NONE;);
unlock:
    STEP(locked = 0;);

died:
    atomic { locked = 0; running = 0; asked = 0; until = 0; upto = 0; announced = 0; n = 0; old_event = 0; old_count = 0; old_end = 0 }
    /* Another comes at once, or when the followers have waited to their bound once or twice, or never. */
    if
    :: turn + 1 < RUNS -> goto start
    :: turn + 1 < RUNS -> until = 1
    :: turn + 1 < RUNS -> until = 2
    :: over = 1; goto out
    fi;
    atomic { until == 0 -> goto start }
out:
    skip
}

/* `Upkeep::wake_all` in the writer's process: it stops and dies with it. */
proctype helper() {
    byte mine, event, n;
idle:
    if
    :: atomic { asked && running -> asked = 0; mine = turn }
    :: stop -> goto out
    fi;
#ifdef BUG_HELPER_IN_STEPS
waking:
#endif
#ifdef BUG_COMPLETE_AS_OF_LATER
    event = 0;
#else
    if
    :: atomic { running && locked && mine == turn -> event = page[mine].commit }
    :: atomic { !locked || mine != turn -> goto idle }
    :: stop -> goto out
    fi;
#endif
    if
    :: atomic {
        running && locked && mine == turn ->
#ifdef BUG_HELPER_IN_STEPS
        futex_wake(mine, 1, n);
        if
        :: n == 1 -> n = 0; goto waking
        :: else -> n = 0
        fi
#else
        futex_wake(mine, FOLLOWERS, n);
        n = 0
#endif
       }
    :: atomic { !locked || mine != turn -> goto idle }
    :: stop -> goto out
    fi;
    if
#ifdef BUG_COMPLETE_AS_OF_LATER
    :: atomic { running && locked && mine == turn -> event = page[mine].commit; helper_woken = event }
#else
    :: atomic { running && locked && mine == turn -> helper_woken = (event > helper_woken -> event : helper_woken) }
#endif
    :: atomic { !locked || mine != turn }
    :: stop -> goto out
    fi;
    goto idle;
out:
    skip
}

/* ------------------------------------------------------------------------------------------------ the followers */

#define ME (1 << me)
/* Whom a living writer sends away from an old page finds the writer's own, without waiting. */
#define SENT_WELL \
    assert(view[me] == turn || sent_by != turn || !locked || pageless < PAGELESS || page[turn].state != OPEN || dead[me] == turn); \
    sent_by = NONE

proctype follower(byte me) {
    byte known, slot = NONE, p, event, pair_count, pair_end, back, sent_by = NONE;
    bit bell, early;

    if
    :: early = 0
    :: EARLY > 0 -> early = 1
    fi;
    /* `Tailer::new` */
    if
    :: atomic { SETTLED -> slot = 0; bell = 1; goto look }
    :: atomic { !SETTLED && locked -> back = NEW; goto find }
    :: atomic { !SETTLED && !locked -> goto look }
    fi;

look:
    if
    :: atomic {
        next[me] < known ->
        /* Reads the record. */
        assert(next[me] < count && bytes[next[me]] == published_as[next[me]] && bytes[next[me]] != TORN);
        next[me]++;
        goto look
       }
    :: atomic { next[me] >= known && view[me] == NONE -> goto look_at_count }
    :: atomic {
        next[me] >= known && view[me] != NONE ->
        assert(next[me] == known);
        if
        :: page[view[me]].end > known -> known = page[view[me]].end; assert((was_published >> known) & 1); goto look
        :: else
        fi
       }
    fi;
    /* `look_elsewhere` */
#if SLEEP_ALONE
    goto wait;
#endif
    atomic {
        if
        :: page[view[me]].state == OPEN && !due[me] -> goto wait
        :: early && page[view[me]].state == OPEN && !due[me] -> early = 0
        :: page[view[me]].state != OPEN || due[me]
        fi;
        back = ELSEWHERE;
        goto check_up
    }
elsewhere:
    atomic {
        if
        :: view[me] == NONE -> goto look_at_count
        :: view[me] != NONE && page[view[me]].end > known -> known = page[view[me]].end; goto look
        :: else -> goto wait
        fi
    }

look_at_count:
    atomic {
        if
        :: due[me] -> back = COUNT; goto check_up
        :: early && !due[me] -> early = 0; back = COUNT; goto check_up
        :: !due[me]
        fi
    }
counted:
    atomic {
        if
        :: count > next[me] -> known = count; goto look
        :: else
        fi
    }

wait:
    if
    :: atomic { view[me] == NONE -> goto poll }
    :: atomic { view[me] != NONE && !bell -> goto pause }
    :: atomic {
        view[me] != NONE && bell ->
        /* `Tailer::sleep`: the event first. */
#ifdef BUG_EVENT_AFTER_END
        skip
#else
        event = page[view[me]].commit
#endif
       }
    fi;
    atomic {
        if
        :: page[view[me]].end > known -> goto look
        :: else
        fi
    }
#if !SLEEP_ALONE
    atomic {
        if
        :: page[view[me]].state != OPEN -> back = LOOK; goto check_up
        :: else
        fi
    }
#endif
#ifdef BUG_EVENT_AFTER_END
    event = page[view[me]].commit;
#endif
#ifndef BUG_NO_SLEEPER_FENCE
    atomic {
#ifdef BUG_STORE_NOT_MAX
        page[view[me]].announced = event + 1
#else
        if
        :: page[view[me]].announced < event + 1 -> page[view[me]].announced = event + 1
        :: else
        fi
#endif
    }
#endif
#if !defined(BUG_NO_SECOND_LOOK) && !defined(SAME_NO_OWN_LOOK)
    atomic {
        if
        :: page[view[me]].commit != event -> goto look
        :: else
        fi
    }
#endif
    /* FUTEX_WAIT compares and enqueues under the lock of the queue. */
    atomic {
        if
#ifdef BUG_NO_SECOND_LOOK
        :: true -> page[view[me]].queue = page[view[me]].queue | ME
#else
        :: page[view[me]].commit != event -> goto look
        :: else -> page[view[me]].queue = page[view[me]].queue | ME
#endif
        fi
    }
#ifdef BUG_NO_SLEEPER_FENCE
    /* The announcement lies in a store buffer meanwhile. */
    atomic {
        if
        :: page[view[me]].announced < event + 1 -> page[view[me]].announced = event + 1
        :: else
        fi
    }
#endif
    event = 0;
    if
    :: atomic { !(page[view[me]].queue & ME) && !limbo[me] -> ticked[me] = 0; goto look }
    :: atomic {
        ((page[view[me]].queue & ME) || limbo[me]) && (ticked[me] || early) ->
        page[view[me]].queue = page[view[me]].queue & (7 - ME);
        limbo[me] = 0;
        goto ended
       }
    :: stop -> goto out
    fi;

    /* Looks at intervals: the looks that see nothing new are left out. */
poll:
    if
    :: atomic { count > next[me] || ticked[me] || early -> goto ended }
    :: stop -> goto out
    fi;
pause:
    if
    :: atomic { page[view[me]].end > known || page[view[me]].state != OPEN -> ticked[me] = 0; goto look }
    :: atomic { ticked[me] || early -> goto ended }
    :: stop -> goto out
    fi;
ended:
    atomic {
        /* The clock ended it, or else chance did. */
        if
        :: ticked[me] -> ticked[me] = 0
        :: early && !ticked[me] && !(view[me] == NONE && count > next[me]) -> early = 0
        :: !ticked[me] && view[me] == NONE && count > next[me]
        fi;
        /* A page without its doorbell is looked at, before the check-up that is due. */
        if
        :: view[me] != NONE && !bell -> goto look
        :: else -> back = LOOK
        fi
    }

check_up:
    atomic {
        due[me] = 0;
        sent_by = (view[me] != NONE && page[view[me]].state == SUPERSEDED -> page[view[me]].by : NONE)
    }
find:
    /* `Opened::view`: the page that is known, as long as it has its name; */
    atomic {
        if
        :: slot == NONE -> goto open
        :: slot != NONE && (page[slot].state != OPEN || dead[me] == slot) -> goto open
        :: else
        fi
    }
    atomic {
        if
        :: page_name == slot -> view[me] = slot; goto found
        :: else
        fi
    }
open:
    /* or the one that has it now. */
    atomic {
        p = page_name; slot = NONE;
        if
        :: p == NONE -> view[me] = NONE; goto found
        :: else
        fi
    }
    bell = (bell_name == p);
    atomic {
        if
        :: page[p].state != OPEN || dead[me] == p -> view[me] = NONE; goto found
        :: else
        fi
    }
    /* `try_pair` */
    event = page[p].commit;
    pair_count = page[p].slot_count[event % SLOTS];
    pair_end = page[p].slot_end[event % SLOTS];
    atomic {
        if
        :: page[p].commit - event < SLOTS - 1 -> assert(whole(pair_count, pair_end))
        :: else -> pair_count = 0
        fi
    }
    /* `Opened::agrees`: a page of this log is never ahead of the file. */
    atomic {
        assert(pair_count <= count);
        slot = p; view[me] = p; p = 0; event = 0; pair_count = 0; pair_end = 0
    }
found:
    if
    :: atomic { back == NEW -> goto look }
    :: atomic { back != NEW && (view[me] == NONE || count <= next[me]) -> SENT_WELL; goto go_back }
    :: atomic { back != NEW && view[me] != NONE && count > next[me] -> SENT_WELL }
    fi;
    atomic {
        if
        :: page[view[me]].end > known -> goto go_back
        :: else
        fi
    }
    if
    :: atomic { !locked }
    /* `heartbeat_is_old` */
    :: atomic { locked && beat_of[me] == view[me] && beat_old[me] }
    :: atomic { locked && beat_of[me] == view[me] && !beat_old[me] -> goto go_back }
    :: atomic { locked && beat_of[me] != view[me] -> beat_of[me] = view[me]; beat_old[me] = 0; goto go_back }
    fi;
#ifndef BUG_NEVER_BY_COUNT
    d_step { dead[me] = view[me]; view[me] = NONE }
#endif
go_back:
    if
    :: atomic { back == LOOK -> goto look }
    :: atomic { back == ELSEWHERE -> goto elsewhere }
    :: atomic { back == COUNT -> goto counted }
    fi;
out:
    skip
}

/* `Reader::stat` */
proctype pair_reader() {
    byte looks = LOOKS, event, pair_count, pair_end, p;
    do
    :: looks > 0 ->
        looks--;
        if
        :: atomic { page_name != NONE -> p = page_name }
        :: atomic { page_name == NONE && turn == 0 }
        :: turn > 0 -> p = turn - 1
        fi;
        event = page[p].commit;
        pair_count = page[p].slot_count[event % SLOTS];
        pair_end = page[p].slot_end[event % SLOTS];
        atomic {
            if
#ifdef BUG_NO_RE_CHECK
            :: true -> assert(whole(pair_count, pair_end))
#else
#ifdef BUG_RE_CHECK_TOO_LENIENT
            :: page[p].commit - event < SLOTS -> assert(whole(pair_count, pair_end))
#else
            :: page[p].commit - event < SLOTS - 1 -> assert(whole(pair_count, pair_end))
#endif
            :: else
#endif
            fi;
            event = 0; pair_count = 0; pair_end = 0; p = 0
        }
    :: looks == 0 -> break
    od
}

/* One who may write the doorbell, and with it call the futex, as he likes. */
proctype hostile() {
    do
    :: acts > 0 ->
        atomic {
            acts--;
            if
            :: page[turn].announced = MOST
            :: page[turn].announced = 0
            :: page[turn].announced = page[turn].commit
            :: page[turn].queue & 1 -> page[turn].queue = page[turn].queue & 6; limbo[0] = 1
            :: page[turn].queue & 2 -> page[turn].queue = page[turn].queue & 5; limbo[1] = 1
            fi
        }
    :: acts == 0 -> break
    :: stop -> break
    od
}

/* ------------------------------------------------------------------------------------------------------- time */

/* A tick comes only where nothing else can happen, and ends all sleeps by their bound: whoever has to wait for it
 * while there is a record for him was not woken. */
proctype clock() {
    byte calm, f;
    do
    :: calm <= CALM && timeout -> d_step {
        do
        :: f < FOLLOWERS ->
            /* No sleeper sleeps on while a record waits, unless the writer died or is stopped before it could wake him. */
            assert(count == next[f] || HOSTILE > 0
                || (view[f] == turn && (!locked || !running))
                || (view[f] != NONE && view[f] != turn && !page[view[f]].told));
            /* Nobody sleeps on a page that is over, once all were told. */
            assert(view[f] == NONE || !page[view[f]].told || !(page[view[f]].queue & (1 << f)));
            ticked[f] = calm < CALM; due[f] = calm < CALM;
            if
            :: beat_of[f] == turn && locked && running -> beat_of[f] = NONE
            :: else -> beat_old[f] = (beat_of[f] != NONE)
            fi;
            if
            :: dead[f] == turn && locked && running -> dead[f] = NONE
            :: else
            fi;
            f++
        :: else -> break
        od;
        f = 0;
        do
        :: f <= turn ->
            /* Whatever died where: the pair is whole. */
            assert(last_pair_is_whole(f) || SLEEP_ALONE);
            f++
        :: else -> break
        od;
        f = 0;
        until = (until > 0 -> until - 1 : 0);
        calm = (over -> calm + 1 : 0)
       }
    :: calm > CALM -> break
    od;
    atomic {
        do
        :: f < FOLLOWERS ->
            /* Nobody hangs, and nothing is missed, whether a writer came back or not; */
            assert(next[f] == count);
            /* and all have found the page of the living writer. */
            assert(!(locked && running && named && page[turn].state == OPEN) || view[f] == turn || HOSTILE > 0);
            f++
        :: else -> break
        od;
        f = 0;
        stop = 1
    }
}

init {
    byte f;
    d_step {
        do
        :: f < 3 -> view[f] = NONE; dead[f] = NONE; beat_of[f] = NONE; due[f] = 1; f++
        :: else -> break
        od;
        f = 0
    }
    if
    :: SETTLED -> d_step {
        locked = 1; running = 1; named = 1; page_name = 0; bell_name = 0;
        page[0].state = OPEN; page[0].by = NONE;
        do
        :: f < FOLLOWERS -> view[f] = 0; due[f] = 0; f++
        :: else -> break
        od;
        f = 0
       }
    :: else
    fi;
    atomic {
        run writer();
        run helper();
        do
        :: f < FOLLOWERS -> run follower(f); f++
        :: else -> break
        od;
        f = 0;
        if :: LOOKS > 0 -> run pair_reader() :: else fi;
        if :: HOSTILE > 0 -> run hostile() :: else fi;
        run clock()
    }
}
