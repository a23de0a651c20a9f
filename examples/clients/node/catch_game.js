// A small game: a ball falls down a column of a 5 x 5 board, and a paddle moves to catch it.
'use strict';

const WIDTH = 5;
const HEIGHT = 5;

class CatchGame {
  // Starts an episode and returns its first observation.
  reset() {
    this.row = 0;
    this.column = Math.floor(Math.random() * WIDTH);
    this.paddle = Math.floor(WIDTH / 2);
    return this.observation();
  }

  // Takes an action (0: left, 1: stay, 2: right); 1 for a ball that is caught, -1 for one that is not.
  step(action) {
    this.paddle = Math.min(Math.max(this.paddle + action - 1, 0), WIDTH - 1);
    this.row += 1;
    const terminated = this.row === HEIGHT - 1;
    const reward = terminated ? (this.paddle === this.column ? 1 : -1) : 0;
    return { observation: this.observation(), reward, terminated, truncated: false };
  }

  // The board as 25 numbers: 1 where the ball is, 1 where the paddle is.
  observation() {
    const board = new Float32Array(WIDTH * HEIGHT);
    board[this.row * WIDTH + this.column] = 1;
    board[(HEIGHT - 1) * WIDTH + this.paddle] = 1;
    return board;
  }
}

module.exports = { CatchGame, NUM_OBSERVATIONS: WIDTH * HEIGHT, NUM_ACTIONS: 3 };
