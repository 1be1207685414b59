//! Benchmark: a ray tracer (spheres over a plane, shadows, reflections) in f64, written in Zig.
//!
//! Scale: image width in 16-pixel units (default 64, that is 1024 x 768), four samples for each pixel. Prints one line
//! "raytrace scale <n> checksum <16 hex digits>" on stdout and its time on stderr, like the C programs.
const std = @import("std");
const Io = std.Io;

const Vec = @Vector(3, f64);

fn splat(x: f64) Vec {
    return @splat(x);
}

fn dot(a: Vec, b: Vec) f64 {
    return @reduce(.Add, a * b);
}

fn unit(a: Vec) Vec {
    return a / splat(@sqrt(dot(a, a)));
}

const Sphere = struct { center: Vec, radius: f64, color: Vec, mirror: f64 };

const Hit = struct { distance: f64, point: Vec, normal: Vec, color: Vec, mirror: f64 };

const light = Vec{ -4, 8, -5 };

var prng: u64 = 0x243f6a8885a308d3;

fn random() f64 {
    prng ^= prng >> 12;
    prng ^= prng << 25;
    prng ^= prng >> 27;
    return @as(f64, @floatFromInt((prng *% 0x2545f4914f6cdd1d) >> 11)) / (1 << 53);
}

fn intersect(spheres: []const Sphere, origin: Vec, direction: Vec) ?Hit {
    var best: ?Hit = null;
    for (spheres) |sphere| {
        const offset = origin - sphere.center;
        const b = dot(offset, direction);
        const discriminant = b * b - dot(offset, offset) + sphere.radius * sphere.radius;
        if (discriminant <= 0) continue;
        const distance = -b - @sqrt(discriminant);
        if (distance < 1e-4 or (best != null and distance >= best.?.distance)) continue;
        const point = origin + direction * splat(distance);
        best = .{
            .distance = distance,
            .point = point,
            .normal = (point - sphere.center) / splat(sphere.radius),
            .color = sphere.color,
            .mirror = sphere.mirror,
        };
    }
    if (direction[1] < -1e-6) { // the plane y = 0, a checkerboard
        const distance = -origin[1] / direction[1];
        if (distance > 1e-4 and (best == null or distance < best.?.distance)) {
            const point = origin + direction * splat(distance);
            const odd = @mod(@floor(point[0]) + @floor(point[2]), 2) != 0;
            best = .{
                .distance = distance,
                .point = point,
                .normal = .{ 0, 1, 0 },
                .color = if (odd) splat(0.9) else splat(0.2),
                .mirror = 0.1,
            };
        }
    }
    return best;
}

fn trace(spheres: []const Sphere, origin: Vec, direction: Vec, depth: u32) Vec {
    const hit = intersect(spheres, origin, direction) orelse
        return Vec{ 0.5, 0.7, 1.0 } * splat(0.5 * (direction[1] + 1)) + splat(0.1);
    const to_light = unit(light - hit.point);
    var brightness: f64 = 0.1;
    if (intersect(spheres, hit.point + hit.normal * splat(1e-4), to_light) == null)
        brightness += 0.9 * @max(0, dot(hit.normal, to_light));
    var color = hit.color * splat(brightness);
    if (depth > 0 and hit.mirror > 0) {
        const reflected = direction - hit.normal * splat(2 * dot(direction, hit.normal));
        const seen = trace(spheres, hit.point, unit(reflected), depth - 1);
        color = color * splat(1 - hit.mirror) + seen * splat(hit.mirror);
    }
    return color;
}

pub fn main(init: std.process.Init) !void {
    const io = init.io;
    const arena = init.arena.allocator();
    const args = try init.minimal.args.toSlice(arena);
    const scale = if (args.len > 1) try std.fmt.parseInt(u32, args[1], 10) else 64;
    const started = Io.Clock.awake.now(io);

    var spheres: [20]Sphere = undefined;
    for (&spheres) |*sphere| {
        const radius = 0.2 + 0.6 * random();
        sphere.* = .{
            .center = .{ 8 * random() - 4, radius, 8 * random() - 1 },
            .radius = radius,
            .color = .{ random(), random(), random() },
            .mirror = 0.6 * random(),
        };
    }

    const width = scale * 16;
    const height = scale * 12;
    const image = try arena.alloc(u8, width * height * 3);
    const eye = Vec{ 0, 2.2, -6 };
    for (0..height) |row| {
        for (0..width) |column| {
            var color = splat(0);
            for (0..4) |_| {
                const x = (@as(f64, @floatFromInt(column)) + random()) / @as(f64, @floatFromInt(width)) - 0.5;
                const y = 0.5 - (@as(f64, @floatFromInt(row)) + random()) / @as(f64, @floatFromInt(height));
                color += trace(&spheres, eye, unit(.{ x * 1.6, y * 1.2 - 0.15, 1 }), 4);
            }
            inline for (0..3) |channel| {
                const level = @min(1, @sqrt(color[channel] / 4));
                image[(row * width + column) * 3 + channel] = @trunc(level * 255);
            }
        }
    }

    const checksum = std.hash.Fnv1a_64.hash(image);
    const elapsed = started.durationTo(Io.Clock.awake.now(io));
    std.debug.print("raytrace {d} ms\n", .{@divTrunc(elapsed.nanoseconds, std.time.ns_per_ms)});
    var buffer: [128]u8 = undefined;
    var stdout_writer: Io.File.Writer = .initStreaming(.stdout(), io, &buffer);
    try stdout_writer.interface.print("raytrace scale {d} checksum {x:0>16}\n", .{ scale, checksum });
    try stdout_writer.interface.flush();
}
