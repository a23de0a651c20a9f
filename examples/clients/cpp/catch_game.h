// A small game: a ball falls down a column of a 5 x 5 board, and a paddle moves to catch it.
#pragma once
#include <algorithm>
#include <array>
#include <random>

class CatchGame {
 public:
  static constexpr int kWidth = 5, kHeight = 5, kNumActions = 3;
  using Board = std::array<float, kWidth * kHeight>;

  // Starts an episode.
  void Reset() {
    row_ = 0;
    column_ = std::uniform_int_distribution<int>(0, kWidth - 1)(random_);
    paddle_ = kWidth / 2;
  }

  // Takes an action (0: left, 1: stay, 2: right); 1 for a ball that is caught, -1 for a lost one.
  float Step(int action) {
    paddle_ = std::clamp(paddle_ + action - 1, 0, kWidth - 1);
    ++row_;
    return IsOver() ? (paddle_ == column_ ? 1.0f : -1.0f) : 0.0f;
  }

  bool IsOver() const { return row_ == kHeight - 1; }

  // The board: 1 where the ball is, 1 where the paddle is.
  Board Observe() const {
    Board board{};
    board[row_ * kWidth + column_] = board[(kHeight - 1) * kWidth + paddle_] = 1.0f;
    return board;
  }

 private:
  std::mt19937 random_{std::random_device{}()};
  int row_ = 0, column_ = 0, paddle_ = 0;
};
