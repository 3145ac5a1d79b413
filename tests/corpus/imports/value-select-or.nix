{ lib, ... }:
let set = { }; in
{
  imports = set.modules or [ ./a.nix ];
}
