{ config, pkgs, /* x */ }@args: {
  a = 1;
}
