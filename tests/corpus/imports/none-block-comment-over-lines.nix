{ pkgs, ... }:
{ /* the build
     machine */
  networking.hostName = "a";
}
