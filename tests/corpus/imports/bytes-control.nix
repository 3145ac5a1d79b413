{ ... }:
{
  imports = [ ./a.nix ];
  text = "[0m";
}
