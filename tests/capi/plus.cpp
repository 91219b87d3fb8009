// The header in C++: a record there and back.
#include <immuta.h>

#include <cstdio>
#include <cstring>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    immuta_writer_options options = {sizeof options};
    options.durability = IMMUTA_BUFFERED;
    immuta_writer *writer = nullptr;
    immuta_reader *reader = nullptr;
    immuta_tailer *tailer = nullptr;
    immuta_record record = {};
    const bool well = immuta_writer_open(argv[1], &options, &writer) == IMMUTA_OK &&
                      immuta_writer_append(writer, "from C++", 8, nullptr) == IMMUTA_OK &&
                      immuta_reader_open(argv[1], nullptr, &reader) == IMMUTA_OK &&
                      immuta_reader_tail(reader, IMMUTA_START_LAST, 1, &tailer) == IMMUTA_OK &&
                      immuta_tailer_next(tailer, 60000, &record) == IMMUTA_OK && record.size == 8 &&
                      std::memcmp(record.payload, "from C++", 8) == 0 && immuta_tailer_close(tailer) == IMMUTA_OK &&
                      immuta_reader_close(reader) == IMMUTA_OK && immuta_writer_close(writer) == IMMUTA_OK;
    if (!well) {
        std::fprintf(stderr, "%s\n", immuta_last_error()->message);
        return 1;
    }
    std::puts("ok");
}
