/* What C++ adds for a debugger to show; tests/unit/test_source_*.py name its lines and values. Freestanding. */
#define EXPORT(name) __attribute__((export_name(name)))
extern "C" __attribute__((import_module("env"), import_name("stop"))) void stop(int where);

namespace shapes {
enum class Mode : unsigned char { Off, On = 200 };

class Base {
  public:
    int id;
    static int made;
};

class Square : public Base {
    int side;

  public:
    Mode mode;
    Square(int length) : side(length), mode(Mode::On) { id = ++made; }
    int area() const {
        stop(2);
        return side * side;
    }
};

int Base::made = 30;
} // namespace shapes

extern "C" EXPORT("run") int run(int seed) {
    shapes::Square square(seed);
    shapes::Base &base = square;
    int area = square.area();
    stop(1);
    return area + base.id;
}
