{
  config,
  pkgs,
  lib, # the last, }
}:
{
  imports = [
    ./a.nix
  ];
  text = ", }";
}
