package immuta;

import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.lang.reflect.Array;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * System calls, where the JDK lets them be made: java.lang.foreign is final since 22. It is reached by reflection, so that one jar is
 * compiled for 17 and sleeps in the kernel from 22 on. Everything goes through syscall(2), which takes and gives numbers alone.
 */
final class Native {
    /** Whether system calls can be made here. */
    static final boolean AVAILABLE;
    /** Whether the kernel can wait for two words at once (5.16). */
    static final boolean WAITS_FOR_TWO;

    private static final MethodHandle SYSCALL;
    private static final MethodHandle ADDRESS;
    private static final MethodHandle ARENA;
    private static final MethodHandle MAP;
    /** Closes what nobody refers to any more. */
    private static final Cleaner CLEANER;
    static final long FUTEX;
    private static final long FUTEX_WAITV = 449;
    private static final long FCNTL;
    private static final long OPENAT;
    private static final long CLOSE;
    private static final long STATX;

    private static final long FUTEX_WAIT = 0;
    private static final long FUTEX_WAKE_PRIVATE = 1 | 128;
    private static final int SIZE_U32 = 2;
    private static final int PRIVATE = 128;
    private static final long CLOCK_MONOTONIC = 1;

    static {
        MethodHandle syscall = null;
        MethodHandle address = null;
        MethodHandle arena = null;
        MethodHandle map = null;
        String arch = System.getProperty("os.arch");
        boolean amd64 = arch.equals("amd64");
        // The numbers of the calls are known for these; those of the second and third are the same.
        if (System.getProperty("os.name").equals("Linux") && (amd64 || arch.equals("aarch64") || arch.equals("riscv64"))) {
            try {
                syscall = linkSyscall();
                address = linkAddress();
                Class<?> arenaType = Class.forName("java.lang.foreign.Arena");
                arena = MethodHandles.publicLookup().unreflect(arenaType.getMethod("ofShared"));
                map = linkMap(arenaType);
            } catch (ReflectiveOperationException | RuntimeException | LinkageError none) {
                // Before 22, or the program was started so that it may not: readers look at intervals instead.
                syscall = null;
            }
        }
        SYSCALL = syscall;
        ADDRESS = address;
        ARENA = arena;
        MAP = map;
        AVAILABLE = syscall != null;
        CLEANER = AVAILABLE ? Cleaner.create() : null;
        FUTEX = amd64 ? 202 : 98;
        FCNTL = amd64 ? 72 : 25;
        OPENAT = amd64 ? 257 : 56;
        CLOSE = amd64 ? 3 : 57;
        STATX = amd64 ? 332 : 291;
        WAITS_FOR_TWO = AVAILABLE && new Sleep().lasts();
    }

    private Native() {}

    private static MethodHandle linkSyscall() throws ReflectiveOperationException {
        Class<?> linkerType = Class.forName("java.lang.foreign.Linker");
        Class<?> optionType = Class.forName("java.lang.foreign.Linker$Option");
        Class<?> segmentType = Class.forName("java.lang.foreign.MemorySegment");
        Class<?> layoutType = Class.forName("java.lang.foreign.MemoryLayout");
        Class<?> descriptorType = Class.forName("java.lang.foreign.FunctionDescriptor");
        Object number = Class.forName("java.lang.foreign.ValueLayout").getField("JAVA_LONG").get(null);
        Object linker = linkerType.getMethod("nativeLinker").invoke(null);
        Object lookup = linkerType.getMethod("defaultLookup").invoke(linker);
        Method find = Class.forName("java.lang.foreign.SymbolLookup").getMethod("find", String.class);
        Object symbol = ((Optional<?>) find.invoke(lookup, "syscall")).orElseThrow();
        Object arguments = Array.newInstance(layoutType, 7);
        for (int n = 0; n < 7; n++) {
            Array.set(arguments, n, number);
        }
        Object descriptor = descriptorType.getMethod("of", layoutType, arguments.getClass()).invoke(null, number, arguments);
        Object options = Array.newInstance(optionType, 1);
        Array.set(options, 0, optionType.getMethod("firstVariadicArg", int.class).invoke(null, 1));
        Method link = linkerType.getMethod("downcallHandle", segmentType, descriptorType, options.getClass());
        return (MethodHandle) link.invoke(linker, symbol, descriptor, options);
    }

    private static MethodHandle linkAddress() throws ReflectiveOperationException {
        Class<?> segmentType = Class.forName("java.lang.foreign.MemorySegment");
        MethodHandle segment = MethodHandles.publicLookup().unreflect(segmentType.getMethod("ofBuffer", java.nio.Buffer.class));
        MethodHandle address = MethodHandles.publicLookup().unreflect(segmentType.getMethod("address"));
        return MethodHandles.filterReturnValue(segment, address);
    }

    private static MethodHandle linkMap(Class<?> arenaType) throws ReflectiveOperationException {
        Method map = FileChannel.class.getMethod("map", FileChannel.MapMode.class, long.class, long.class, arenaType);
        Method buffer = Class.forName("java.lang.foreign.MemorySegment").getMethod("asByteBuffer");
        MethodHandles.Lookup lookup = MethodHandles.publicLookup();
        return MethodHandles.filterReturnValue(lookup.unreflect(map), lookup.unreflect(buffer));
    }

    /** The beginning of a file in memory; {@code arena} is null where only a garbage collection unmaps it. */
    record Mapping(ByteBuffer bytes, Cleaner.Cleanable arena) {
        /** The bytes are not to be touched any more. */
        void close() {
            if (arena != null) {
                arena.clean();
            }
        }
    }

    static Mapping map(FileChannel channel, FileChannel.MapMode mode, int bytes) throws IOException {
        if (!AVAILABLE) {
            return new Mapping(channel.map(mode, 0, bytes).order(ByteOrder.LITTLE_ENDIAN), null);
        }
        AutoCloseable arena = null;
        try {
            arena = (AutoCloseable) ARENA.invoke();
            ByteBuffer buffer = (ByteBuffer) MAP.invoke(channel, mode, 0L, (long) bytes, arena);
            return new Mapping(buffer.order(ByteOrder.LITTLE_ENDIAN), CLEANER.register(buffer, closing(arena)));
        } catch (IOException refused) {
            closing(arena).run();
            throw refused;
        } catch (Throwable impossible) {
            throw new LinkageError("map", impossible);
        }
    }

    private static Runnable closing(AutoCloseable arena) {
        return () -> {
            try {
                arena.close();
            } catch (Exception impossible) {
                throw new LinkageError("arena", impossible);
            }
        };
    }

    static long call(long number, long a, long b, long c, long d, long e, long f) {
        try {
            return (long) SYSCALL.invokeExact(number, a, b, c, d, e, f);
        } catch (Throwable impossible) {
            throw new LinkageError("syscall", impossible);
        }
    }

    /** Where a direct buffer begins. */
    static long address(ByteBuffer direct) {
        try {
            return (long) ADDRESS.invoke((java.nio.Buffer) direct);
        } catch (Throwable impossible) {
            throw new LinkageError("address", impossible);
        }
    }

    static ByteBuffer memory(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
    }

    /** What one thread needs to sleep: a word of its own, by which others end its sleep. */
    static final class Sleep {
        private final ByteBuffer word = memory(8);
        private final long wordAddress = address(word);
        /** Two struct futex_waitv of 24 bytes, and a timespec behind them. */
        private final ByteBuffer arguments = memory(64);
        private final long argumentsAddress = address(arguments);

        /** From here on {@link #wake} ends the next sleep. */
        void prepare() {
            word.putInt(0, 0);
            // Before the caller looks whether it was to be woken already: a wake() that comes behind that look is not overwritten.
            VarHandle.fullFence();
        }

        /** Ends the sleep, now or before it begins. Any thread may call it. */
        void wake() {
            word.putInt(0, 1);
            VarHandle.fullFence();
            call(FUTEX, wordAddress, FUTEX_WAKE_PRIVATE, Integer.MAX_VALUE, 0, 0, 0);
        }

        /** Sleeps while the word of another process at {@code shared} is {@code expected} and nobody calls {@link #wake}. */
        void waitForTwo(long shared, int expected, long nanos) {
            waiter(0, shared, expected, SIZE_U32);
            waiter(24, wordAddress, 0, SIZE_U32 | PRIVATE);
            // Its limit is a time of CLOCK_MONOTONIC, which is what nanoTime is on Linux.
            time(System.nanoTime() + nanos);
            call(FUTEX_WAITV, argumentsAddress, 2, 0, argumentsAddress + 48, CLOCK_MONOTONIC, 0);
        }

        /** The same for kernels before 5.16; {@link #wake} does not end it. */
        void waitForOne(long shared, int expected, long nanos) {
            time(nanos);
            call(FUTEX, shared, FUTEX_WAIT, expected & 0xffff_ffffL, argumentsAddress + 48, 0, 0);
        }

        private void waiter(int at, long address, int value, int flags) {
            arguments.putLong(at, value & 0xffff_ffffL).putLong(at + 8, address).putInt(at + 16, flags).putInt(at + 20, 0);
        }

        private void time(long nanos) {
            arguments.putLong(48, TimeUnit.NANOSECONDS.toSeconds(nanos)).putLong(56, nanos % TimeUnit.SECONDS.toNanos(1));
        }

        /** Whether waiting for two takes time: without errno it is how a kernel that cannot is told. */
        private boolean lasts() {
            long begin = System.nanoTime();
            prepare();
            ByteBuffer other = memory(4);
            waitForTwo(address(other), 0, TimeUnit.MILLISECONDS.toNanos(2));
            Reference.reachabilityFence(other);
            return System.nanoTime() - begin >= TimeUnit.MILLISECONDS.toNanos(1);
        }
    }

    /** A descriptor of this very file, or -1. */
    static int open(String path, LogFile.Identity identity) {
        byte[] name = path.getBytes();
        ByteBuffer memory = memory(name.length + 1 + 256 + 8);
        memory.put(256, name);
        long address = address(memory);
        final long here = -100, flags = 0x80000 | 0x800; // AT_FDCWD; O_RDONLY with O_CLOEXEC and O_NONBLOCK
        long fd = call(OPENAT, here, address + 256, flags, 0, 0, 0);
        if (fd < 0) {
            return -1;
        }
        final long emptyPath = 0x1000, basic = 0x7ff; // AT_EMPTY_PATH, STATX_BASIC_STATS
        boolean told = call(STATX, fd, address + 256 + name.length, emptyPath, basic, address, 0) == 0;
        long major = memory.getInt(136) & 0xffff_ffffL;
        long minor = memory.getInt(140) & 0xffff_ffffL;
        if (told && memory.getLong(32) == identity.inode() && WriterLock.device(major, minor) == identity.device()) {
            return (int) fd;
        }
        close((int) fd);
        return -1;
    }

    static void close(int fd) {
        call(CLOSE, fd, 0, 0, 0, 0, 0);
    }

    /** Whether a lock of another open file description is on the byte: F_OFD_GETLK for a read lock. Empty where the system refuses. */
    static Optional<Boolean> isLocked(int fd, long offset) {
        final int readLock = 0, noLock = 2;
        final long getLock = 36; // F_RDLCK, F_UNLCK, F_OFD_GETLK
        // struct flock: two of 16 bits, start and length of 64, a process.
        ByteBuffer lock = memory(32).putShort(0, (short) readLock).putLong(8, offset).putLong(16, 1);
        long done = call(FCNTL, fd, getLock, address(lock), 0, 0, 0);
        return done < 0 ? Optional.empty() : Optional.of(lock.getShort(0) != noLock);
    }
}
