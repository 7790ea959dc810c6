// digits.cpp FILE: trains a small network on handwritten digits, in one file, without Python.
// The network has one hidden layer; its forward and backward pass are plain loops. Its parameters lie in one flat
// buffer in four segments; on the way the learning rate is lowered and the first layer is frozen for some epochs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <optimisers/optimisers.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace opt = optimisers;

namespace {

constexpr std::size_t pixels = 64, hidden = 64, classes = 10, batch = 32;
constexpr int epochs = 30;
constexpr double required_accuracy = 0.95;

struct Image {
  float grey[pixels];  // in [0, 1]
  int digit;
};

std::vector<Image> read_images(const char* path) {
  std::ifstream file(path);
  std::vector<Image> images;
  for (std::string line; std::getline(file, line);) {
    std::istringstream numbers(line);
    Image image{};
    char comma = 0;
    for (float& g : image.grey) {
      numbers >> g >> comma;
      g /= 16;
    }
    if (!(numbers >> image.digit)) return {};
    images.push_back(image);
  }
  return images;
}

// Views of one flat buffer: the parameters, or their gradients.
struct Network {
  std::span<float> w1, b1, w2, b2;
  explicit Network(std::span<float> flat) {
    static constexpr std::size_t sizes[] = {pixels * hidden, hidden, hidden * classes, classes};
    const auto parts = opt::split(flat, sizes);
    w1 = parts[0], b1 = parts[1], w2 = parts[2], b2 = parts[3];
  }
  static constexpr std::size_t size = pixels * hidden + hidden + hidden * classes + classes;
};

struct Activations {
  float hidden_layer[hidden], scores[classes];
};

void forward(const Network& net, const Image& image, Activations& a) {
  std::copy(net.b1.begin(), net.b1.end(), a.hidden_layer);
  for (std::size_t i = 0; i < pixels; ++i)
    for (std::size_t j = 0; j < hidden; ++j) a.hidden_layer[j] += image.grey[i] * net.w1[i * hidden + j];
  for (float& h : a.hidden_layer) h = std::max(h, 0.f);
  std::copy(net.b2.begin(), net.b2.end(), a.scores);
  for (std::size_t j = 0; j < hidden; ++j)
    for (std::size_t c = 0; c < classes; ++c) a.scores[c] += a.hidden_layer[j] * net.w2[j * classes + c];
}

// Adds one image's share of the gradient of the mean cross-entropy; returns its cross-entropy in nats.
double backward(const Network& net, const Image& image, float share, Network& gradient) {
  Activations a;
  forward(net, image, a);
  const float largest = *std::max_element(a.scores, a.scores + classes);
  float sum = 0, d_scores[classes], d_hidden[hidden] = {};
  for (std::size_t c = 0; c < classes; ++c) sum += d_scores[c] = std::exp(a.scores[c] - largest);
  for (float& d : d_scores) d *= share / sum;
  d_scores[image.digit] -= share;
  for (std::size_t j = 0; j < hidden; ++j)
    for (std::size_t c = 0; c < classes; ++c) {
      gradient.w2[j * classes + c] += a.hidden_layer[j] * d_scores[c];
      d_hidden[j] += net.w2[j * classes + c] * d_scores[c];
    }
  for (std::size_t c = 0; c < classes; ++c) gradient.b2[c] += d_scores[c];
  for (std::size_t j = 0; j < hidden; ++j) {
    if (a.hidden_layer[j] == 0) d_hidden[j] = 0;
    gradient.b1[j] += d_hidden[j];
  }
  for (std::size_t i = 0; i < pixels; ++i)
    for (std::size_t j = 0; j < hidden; ++j) gradient.w1[i * hidden + j] += image.grey[i] * d_hidden[j];
  return std::log(sum) + largest - a.scores[image.digit];
}

double accuracy(const Network& net, std::span<const Image> images) {
  std::size_t right = 0;
  Activations a;
  for (const Image& image : images) {
    forward(net, image, a);
    right += std::max_element(a.scores, a.scores + classes) - a.scores == image.digit;
  }
  return double(right) / double(images.size());
}

// The standard's distributions differ between libraries; the sum of twelve uniform numbers does not.
float normal(std::mt19937& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += random() / 4294967296.0;
  return float(sum);
}

void shuffle(std::vector<std::size_t>& order, std::mt19937& random) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

double train(std::span<const Image> training, std::span<const Image> held_out) {
  std::mt19937 random(0);
  std::vector<float> flat(Network::size), flat_gradient(Network::size);
  const Network net(flat);
  Network gradient(flat_gradient);
  for (float& w : net.w1) w = normal(random) * std::sqrt(2.f / pixels);
  for (float& w : net.w2) w = normal(random) * std::sqrt(2.f / hidden);

  const auto rule =
      opt::Chain{opt::ClipNorm{.omega = 1.0, .scope = opt::Scope::global}, opt::AdamW{.eta = 5e-3, .lambda = 1e-2}};
  opt::State state = opt::setup(
      rule,
      opt::Model(flat,
                 {{"l1.w", {pixels, hidden}}, {"l1.b", {hidden}}, {"l2.w", {hidden, classes}}, {"l2.b", {classes}}}));
  std::vector<std::size_t> order(training.size());
  std::iota(order.begin(), order.end(), std::size_t(0));

  for (int epoch = 0; epoch < epochs; ++epoch) {
    if (epoch == 10)
      for (opt::Leaf leaf : state.leaves("l1")) leaf.freeze();
    if (epoch == 15) state.thaw();
    if (epoch == 20) state.adjust(1e-3);
    shuffle(order, random);
    double loss = 0;
    for (std::size_t start = 0; start < order.size(); start += batch) {
      const std::size_t n = std::min(batch, order.size() - start);
      std::fill(flat_gradient.begin(), flat_gradient.end(), 0.f);
      for (std::size_t k = 0; k < n; ++k) loss += backward(net, training[order[start + k]], 1.f / float(n), gradient);
      state.update(flat, flat_gradient);
    }
    std::printf("epoch %2d: loss %.4f, held-out accuracy %.4f%s\n", epoch + 1, loss / double(training.size()),
                accuracy(net, held_out), state["l1.w"].frozen() ? "  (first layer frozen)" : "");
  }
  return accuracy(net, held_out);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<Image> images = read_images(argc > 1 ? argv[1] : "digits.csv");
  if (images.size() < 1000) {
    std::fprintf(stderr, "usage: digits digits.csv   (export_digits.py writes that file)\n");
    return 2;
  }
  const std::span<const Image> all(images);
  const std::size_t split = all.size() * 4 / 5;
  const double final_accuracy = train(all.first(split), all.subspan(split));
  std::printf("held-out accuracy %.4f on %zu images\n", final_accuracy, all.size() - split);
  return final_accuracy >= required_accuracy ? 0 : 1;
}
