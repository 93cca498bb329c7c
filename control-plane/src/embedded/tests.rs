mod authorize;
mod foreign;
mod lifecycle;
mod patch;
mod route;
mod selector;
mod tokens;
mod watch;
