// What the report draws with: a canvas with lines, shapes and a small font, axes, and PNG files (stb_image_write).

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#if __has_include(<stb/stb_image_write.h>) || __has_include(<stb_image_write.h>)
#define PLOT_HAS_STB
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#if __has_include(<stb/stb_image_write.h>)
#include <stb/stb_image_write.h>
#else
#include <stb_image_write.h>
#endif
#endif

namespace plot {

struct Color {
    double r, g, b;
};
constexpr Color rgb(unsigned hex) { return {double(hex >> 16), double(hex >> 8 & 255), double(hex & 255)}; }

// The printable ASCII characters from '!' on, nine rows of five dots each, a row a digit to base 32. The last two rows
// are below the base line. What is missing is blank.
constexpr char kFont[] =
    "444440400000000000000000000000000000pp248jj000000000004400000002488842008422248000level000044v44000000004480"
    "000v0000000000040011248gg00ehhhhhe004c4444e00eh1248v00v2421he0026aiv2200vgu11he0068guhhe00v12244400ehhehhe00"
    "ehhf12c00004004000004004480248g8420000v0v0000842124800eh12404000ehnlnge04ahhvhh00uhhuhhu00ehggghe00uhhhhhu00"
    "vgguggv00vgguggg00ehgjhhe00hhhvhhh00e44444e0072222ic00hikokih00ggggggv00hrllhhh00hplljhh00ehhhhhe00uhhuggg00"
    "ehhhlid00uhhukih00fgge11u00v44444400hhhhhhe00hhhaaa400hhhllla00hha4ahh00hha444400v1248gv00000000000000000000"
    "0000000000000000000000000v000000000000e1fhf00gguhhhu0000ehghe0011fhhhf0000ehvge0068u88880000fhhhf1egguhhhh00"
    "40c444e002062222icggikoki00c44444e0000ullll0000uhhhh0000ehhhe0000uhhhugg00fhhhf1100moggg0000fge1u0088u889600"
    "00hhhhf0000hhha40000hllla0000ha4ah0000hhhhf1e00v248v00000000000444444400000000000000000000";
static_assert(sizeof kFont == 94 * 9 + 1, "nine digits for each character");

class Glyph {
  public:
    explicit Glyph(char c) : rows_(kFont + 9 * (c > ' ' && c <= '~' ? c - '!' : '?' - '!')) {
        for (int x = 0; x < 5; ++x)
            for (int y = 0; y < 9; ++y)
                if (dot(x, y)) left_ = std::min(left_, x), right_ = std::max(right_, x);
        if (right_ < left_ || c == ' ') left_ = 0, right_ = c == ' ' ? 1 : -1;
        if (c >= '0' && c <= '9') left_ = 0, right_ = 4;  // digits stand in columns
    }
    bool dot(int x, int y) const {
        if (x < 0 || x > 4 || y < 0 || y > 8) return false;
        const char row = rows_[y];
        return (row <= '9' ? row - '0' : row - 'a' + 10) >> (4 - x) & 1;
    }
    int left() const { return left_; }
    double advance() const { return right_ - left_ + 2.1; }
  private:
    const char* rows_;
    int left_ = 4, right_ = 0;
};

class Canvas {
  public:
    Canvas(int width, int height, Color paper) : width_(width), height_(height) {
        pixels_.assign(std::size_t(width) * std::size_t(height), paper);
    }
    // With round ends. All coordinates are pixels from the upper left corner.
    void line(double x0, double y0, double x1, double y1, double thickness, Color c, double alpha = 1) {
        const double r = thickness / 2, dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
        cover(std::min(x0, x1) - r, std::min(y0, y1) - r, std::max(x0, x1) + r, std::max(y0, y1) + r, c, alpha,
              [&](double x, double y) {
                  const double t = length > 0 ? std::clamp(((x - x0) * dx + (y - y0) * dy) / length, 0.0, 1.0) : 0;
                  return r - std::hypot(x - x0 - t * dx, y - y0 - t * dy) + 0.5;
              });
    }
    void dashes(double x0, double y0, double x1, double y1, double thickness, Color c) {
        const int n = std::max(1, int(std::hypot(x1 - x0, y1 - y0) / 9));
        for (int i = 0; i < n; ++i) {
            const double a = i / double(n), b = (i + 0.45) / n;
            line(x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0), thickness, c);
        }
    }
    void rect(double x0, double y0, double x1, double y1, Color c, double alpha = 1) {
        cover(x0, y0, x1, y1, c, alpha, [&](double x, double y) {
            const auto inside = [](double at, double from, double to) {
                return std::clamp(std::min(at + 0.5, to) - std::max(at - 0.5, from), 0.0, 1.0);
            };
            return inside(x, x0, x1) * inside(y, y0, y1);
        });
    }
    void disc(double x, double y, double r, Color c, double alpha = 1) { line(x, y, x, y, 2 * r, c, alpha); }
    void square(double x, double y, double r, Color c, double alpha = 1) { rect(x - r, y - r, x + r, y + r, c, alpha); }

    // `size` is a capital's height, y the base line; align 0 begins at x, 0.5 is centred, 1 ends there. The font's dots
    // are joined by round strokes.
    void text(double x, double y, const std::string& s, double size, Color c, double align = 0, bool bold = false,
              bool upwards = false) {
        const double unit = size / 6, stroke = unit * (bold ? 1.25 : 0.8);
        double at = -align * text_width(s, size);
        const auto joined = [&](const Glyph& g, int px, int py, int qx, int qy) {
            const double ax = at + (px - g.left()) * unit, ay = (py - 6) * unit;
            const double bx = at + (qx - g.left()) * unit, by = (qy - 6) * unit;
            if (upwards) line(x + ay, y - ax, x + by, y - bx, stroke, c);
            else line(x + ax, y + ay, x + bx, y + by, stroke, c);
        };
        for (const char letter : s) {
            const Glyph g(letter);
            for (int py = 0; py < 9 && letter != ' '; ++py)
                for (int px = 0; px < 5; ++px) {
                    if (!g.dot(px, py)) continue;
                    const bool right = g.dot(px + 1, py), below = g.dot(px, py + 1), left = g.dot(px - 1, py);
                    if (right) joined(g, px, py, px + 1, py);
                    if (below) joined(g, px, py, px, py + 1);
                    if (!right && !below && g.dot(px + 1, py + 1)) joined(g, px, py, px + 1, py + 1);
                    if (!left && !below && g.dot(px - 1, py + 1)) joined(g, px, py, px - 1, py + 1);
                    joined(g, px, py, px, py);
                }
            at += g.advance() * unit;
        }
    }
    static double text_width(const std::string& s, double size) {
        double units = -1.1;
        for (const char letter : s) units += Glyph(letter).advance();
        return units * size / 6;
    }

    void save(const std::string& path) const {
#ifdef PLOT_HAS_STB
        std::vector<unsigned char> bytes;
        for (const Color& p : pixels_)
            for (const double v : {p.r, p.g, p.b}) bytes.push_back(static_cast<unsigned char>(std::lround(v)));
        stbi_write_force_png_filter = 0;  // flat colours: any other makes the file larger
        if (!stbi_write_png(path.c_str(), width_, height_, 3, bytes.data(), width_ * 3))
            throw std::runtime_error("cannot write the picture: " + path + ": check the directory and its permissions");
#else
        throw std::runtime_error(
            "built without stb_image_write: " + path +
            ": install libstb-dev (apt), stb_image_write-devel (dnf) or stb (pacman) and build again");
#endif
    }
  private:
    // Blends a shape into the pixels of a box; coverage(x, y) of a pixel's centre is 0 to 1 and may exceed it.
    template <class Coverage>
    void cover(double x0, double y0, double x1, double y1, Color c, double alpha, const Coverage& coverage) {
        const int left = std::max(0, int(x0) - 1), right = std::min(width_ - 1, int(x1) + 1);
        const int top = std::max(0, int(y0) - 1), bottom = std::min(height_ - 1, int(y1) + 1);
        for (int y = top; y <= bottom; ++y)
            for (int x = left; x <= right; ++x) {
                const double a = alpha * std::clamp(coverage(x + 0.5, y + 0.5), 0.0, 1.0);
                Color& p = pixels_[std::size_t(y) * std::size_t(width_) + std::size_t(x)];
                p = {p.r + a * (c.r - p.r), p.g + a * (c.g - p.g), p.b + a * (c.b - p.b)};
            }
    }
    int width_, height_;
    std::vector<Color> pixels_;
};

// Values to pixels. `from` is where the lowest value lies.
struct Axis {
    double low, high, from, to;
    bool log = false;

    double operator()(double v) const {
        const double t = log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
        return from + t * (to - from);
    }
    // About `wanted` round values; on a logarithmic axis the powers of ten.
    std::vector<double> ticks(int wanted) const {
        std::vector<double> values;
        if (log) {
            for (double v = std::pow(10, std::ceil(std::log10(low) - 1e-9)); v <= high * 1.0001; v *= 10)
                values.push_back(v);
            return values;
        }
        const double raw = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(raw)));
        const double step = power * (raw / power > 5 ? 10 : raw / power > 2 ? 5 : raw / power > 1 ? 2 : 1);
        for (int i = int(std::ceil(low / step - 1e-9)); i * step <= high + 1e-9 * step; ++i) values.push_back(i * step);
        return values;
    }
};

inline std::string number(double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.5g", v);
    return text;
}

constexpr Color kInk = rgb(0x2b2a28), kFaint = rgb(0x77736b), kGrid = rgb(0xe3dfd5), kPanel = rgb(0xfffefb);

// A panel with its title, grid, tick labels and axis names.
inline void axes(Canvas& c, const std::string& title, const Axis& x, const Axis& y, const std::string& x_name,
                 const std::string& y_name, int x_ticks = 6, int y_ticks = 5) {
    c.rect(x.from, y.to, x.to, y.from, kPanel);
    for (const double v : x.ticks(x_ticks)) {
        c.rect(x(v) - 0.5, y.to, x(v) + 0.5, y.from, kGrid);
        c.text(x(v), y.from + 22, number(v), 11, kFaint, 0.5);
    }
    for (const double v : y.ticks(y_ticks)) {
        c.rect(x.from, y(v) - 0.5, x.to, y(v) + 0.5, kGrid);
        c.text(x.from - 9, y(v) + 5, number(v), 11, kFaint, 1);
    }
    c.rect(x.from - 0.75, y.to, x.from + 0.75, y.from, kFaint);
    c.rect(x.from, y.from - 0.75, x.to, y.from + 0.75, kFaint);
    c.text(x.from, y.to - 16, title, 15, kInk, 0, true);
    c.text((x.from + x.to) / 2, y.from + 48, x_name, 12, kInk, 0.5);
    c.text(x.from - 66, (y.from + y.to) / 2, y_name, 12, kInk, 0.5, false, true);
}

}  // namespace plot
