{ lib, ... }:

with lib; {
  imports = [
    ./a.nix
  ];
}
