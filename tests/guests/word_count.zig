//! A real Zig guest on std's WASI layer: counts words over a directory tree, files, time and random included.
//!
//! argv[1] is the directory (default /work). Prints the ten most frequent words, a total, a random sample word, and
//! writes the full table to word_count.tsv in that directory.
const std = @import("std");
const Io = std.Io;

const Entry = struct { word: []const u8, count: u32 };

fn moreFrequent(_: void, a: Entry, b: Entry) bool {
    if (a.count != b.count) return a.count > b.count;
    return std.mem.lessThan(u8, a.word, b.word);
}

pub fn main(init: std.process.Init) !void {
    const io = init.io;
    const arena = init.arena.allocator();
    const args = try init.minimal.args.toSlice(arena);
    const path = if (args.len > 1) args[1] else "/work";

    var buffer: [512]u8 = undefined;
    var stdout_writer: Io.File.Writer = .initStreaming(.stdout(), io, &buffer);
    const out = &stdout_writer.interface;

    const started = Io.Clock.awake.now(io);
    const root = switch (init.preopens.get(path) orelse return error.NotPreopened) {
        .dir => |dir| dir,
        .file => return error.NotDir,
    };
    var dir = try root.openDir(io, ".", .{ .iterate = true });
    defer dir.close(io);

    var counts: std.StringHashMap(u32) = .init(arena);
    var files: u32 = 0;
    var walker = try dir.walk(arena);
    defer walker.deinit();
    while (try walker.next(io)) |item| {
        if (item.kind != .file or std.mem.eql(u8, item.path, "word_count.tsv")) continue;
        const text = try dir.readFileAlloc(io, item.path, arena, .limited(64 << 20));
        files += 1;
        var words = std.mem.tokenizeAny(u8, text, " \t\r\n.,;:!?\"'()[]{}<>");
        while (words.next()) |word| {
            const slot = try counts.getOrPut(try std.ascii.allocLowerString(arena, word));
            slot.value_ptr.* = if (slot.found_existing) slot.value_ptr.* + 1 else 1;
        }
    }

    const table = try arena.alloc(Entry, counts.count());
    var total: u64 = 0;
    var all = counts.iterator();
    for (table) |*entry| {
        const next = all.next().?;
        entry.* = .{ .word = next.key_ptr.*, .count = next.value_ptr.* };
        total += entry.count;
    }
    std.mem.sort(Entry, table, {}, moreFrequent);

    for (table[0..@min(10, table.len)]) |entry| try out.print("{d:>6} {s}\n", .{ entry.count, entry.word });
    try out.print("{d} words, {d} distinct, {d} files\n", .{ total, table.len, files });
    if (table.len > 0) {
        var noise: [8]u8 = undefined;
        io.random(&noise);
        const pick = std.mem.readInt(u64, &noise, .little) % table.len;
        try out.print("sample {s}\n", .{table[@intCast(pick)].word});
    }

    var tsv: Io.Writer.Allocating = .init(arena);
    for (table) |entry| try tsv.writer.print("{s}\t{d}\n", .{ entry.word, entry.count });
    try dir.writeFile(io, .{ .sub_path = "word_count.tsv", .data = tsv.written() });

    const elapsed = started.durationTo(Io.Clock.awake.now(io));
    try out.print("elapsed {d} ns at {d}\n", .{ elapsed.nanoseconds, Io.Clock.real.now(io).nanoseconds });
    try out.flush();
}
