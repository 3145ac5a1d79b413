{
  imports = [ ./a.nix ];
  networking.hostName = "a";
}
